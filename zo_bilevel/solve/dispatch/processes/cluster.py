"""Solves on a Dask or Ray cluster, one by one."""

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, final
from uuid import uuid4

from zo_bilevel.solve.dispatch.processes.cluster_side import (
    close_local_pool,
    end_solves,
    solve_on_cluster,
)
from zo_bilevel.solve.dispatch.processes.pool import Limits
from zo_bilevel.solve.dispatch.processes.supervisor import Shipment
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import InputError, ZoBilevelError
from zo_bilevel.support.packages import import_optional

MOST_ATTEMPTS = 3
"""How often a solve that the cluster lost with a machine is sent."""
Handle: TypeAlias = Any
"""A solve that runs, as the cluster's package names it."""


class Cluster(Protocol):
    """A running cluster."""

    @property
    def num_workers(self) -> int:
        """How many solves run at once."""
        ...

    @property
    def most_running(self) -> float:
        """How many may be handed over at once."""
        ...

    def start(self, ended: Callable[[Handle], object], *arguments: Any) -> Handle:  # noqa: ANN401
        """Have `solve_on_cluster` called; `ended` is called when that is done or lost."""
        ...

    def answer(self, handle: Handle) -> Outcome | ZoBilevelError:
        """What became of a solve that ended; raises whatever the cluster raises if it was lost."""
        ...

    def stop(self, token: str, handles: Sequence[Handle]) -> None:
        """Kill solves."""
        ...

    def close(self) -> None:
        """Let go of the cluster's workers; the cluster itself goes on."""
        ...


def running_cluster(backend: str, n_jobs: int) -> Cluster:
    """The cluster that was started or connected to.

    Raises:
        MissingPackageError: If the package is not installed.
        InputError: If there is no cluster, or it is smaller than `n_jobs`.
    """
    return _Dask() if backend == "dask" else _Ray(n_jobs)


@final
class ClusterStream:
    """Solves on a cluster; those that it loses are sent again."""

    def __init__(self, cluster: Cluster, shipment: Shipment, limits: Limits) -> None:
        self._cluster, self._solver = cluster, (shipment, limits)
        self._token, self._count, self._is_closed = uuid4().hex, 0, False
        self._waiting: deque[tuple[Job, int]] = deque()
        self._running: dict[int, tuple[Handle, Job, int]] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    def submit(self, job: Job) -> None:
        """Start a job as soon as the cluster has room."""
        self._waiting.append((job, 1))
        self._start()

    def _start(self) -> None:
        shipment, limits = self._solver
        while self._waiting and len(self._running) < self._cluster.most_running:
            job, attempt = self._waiting.popleft()
            number = self._count = self._count + 1

            def ended(_: Handle, number: int = number) -> None:
                self._ended.put(number)

            handle = self._cluster.start(ended, shipment, job, limits, self._token)
            self._running[number] = handle, job, attempt

    def next(self, seconds: float = math.inf) -> tuple[int, Outcome] | None:
        """The index and outcome of the job that ends next; none if that takes longer.

        Raises:
            ZoBilevelError: If the solver cannot be had over there.
        """
        deadline = time.monotonic() + seconds
        while True:
            left = None if seconds == math.inf else max(deadline - time.monotonic(), 0.0)
            try:
                handle, job, attempt = self._running.pop(self._ended.get(timeout=left))
            except queue.Empty:
                return None
            try:
                answer = self._cluster.answer(handle)
            except Exception as error:  # noqa: BLE001 - whatever a cluster raises
                if self._is_closed:
                    continue
                if attempt < MOST_ATTEMPTS:
                    self._waiting.append((job, attempt + 1))
                    self._start()
                    continue
                lost = f"the cluster lost it: {type(error).__name__}: {error}"
                answer = Outcome("crashed", error=lost)
            self._start()
            if isinstance(answer, ZoBilevelError):
                raise answer
            return job.index, answer

    def close(self) -> None:
        """Start no further job, kill what runs."""
        if not self._is_closed:
            self._is_closed = True
            self._waiting.clear()
            if self._running:
                self._cluster.stop(self._token, [handle for handle, _, _ in self._running.values()])


@final
class _Dask:
    """The cluster of the current client, which spreads solves over its workers by itself."""

    def __init__(self) -> None:
        distributed = import_optional("distributed", "backend='dask'", "dask")
        try:
            self._client = distributed.get_client()
        except ValueError as error:
            raise InputError(
                "backend='dask' needs a cluster: create a dask.distributed.Client(...) before the "
                "run"
            ) from error

    @property
    def num_workers(self) -> int:
        return max(1, sum(map(int, self._client.nthreads().values())))

    @property
    def most_running(self) -> float:
        return math.inf

    def start(self, ended: Callable[[Handle], object], *arguments: Any) -> Handle:  # noqa: ANN401
        handle = self._client.submit(solve_on_cluster, *arguments, pure=False)
        handle.add_done_callback(ended)
        return handle

    def answer(self, handle: Handle) -> Outcome | ZoBilevelError:
        answer: Outcome | ZoBilevelError = handle.result()
        return answer

    def stop(self, token: str, handles: Sequence[Handle]) -> None:
        if self._client.status == "running":
            self._client.cancel(list(handles))
            self._client.run(end_solves, token)

    def close(self) -> None:
        if self._client.status == "running":
            self._client.run(close_local_pool)


class _Actor:
    """A core of a Ray cluster."""

    def solve(self, *arguments: Any) -> Outcome | ZoBilevelError:  # noqa: ANN401 - as in start
        return solve_on_cluster(*arguments)


@final
class _Ray:
    """As many actors as solves run at once."""

    def __init__(self, n_jobs: int) -> None:
        self._ray = import_optional("ray", "backend='ray'", "ray")
        if not self._ray.is_initialized():
            raise InputError("backend='ray' needs a cluster: call ray.init(...) before the run")
        cores = int(self._ray.cluster_resources().get("CPU", 1))
        if n_jobs > cores:
            raise InputError(f"n_jobs must be at most the cluster's {cores} cores, got {n_jobs}")
        self.num_workers = self.most_running = n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)
        self._actor = self._ray.remote(num_cpus=1)(_Actor)
        self._idle: list[Any] = []
        self._busy: dict[Handle, Any] = {}

    def start(self, ended: Callable[[Handle], object], *arguments: Any) -> Handle:  # noqa: ANN401
        actor = self._idle.pop() if self._idle else self._actor.remote()
        handle = actor.solve.remote(*arguments).future()
        self._busy[handle] = actor
        handle.add_done_callback(ended)
        return handle

    def answer(self, handle: Handle) -> Outcome | ZoBilevelError:
        actor = self._busy.pop(handle, None)
        answer: Outcome | ZoBilevelError = handle.result()
        if actor is not None:  # it is lost otherwise, or was killed
            self._idle.append(actor)
        return answer

    def stop(self, token: str, handles: Sequence[Handle]) -> None:  # noqa: ARG002 - Dask's way
        for handle in handles:
            if not handle.done():
                self._ray.kill(self._busy.pop(handle))

    def close(self) -> None:
        if self._ray.is_initialized():
            for actor in (*self._idle, *self._busy.values()):
                self._ray.kill(actor)
        self._idle.clear()
        self._busy.clear()
