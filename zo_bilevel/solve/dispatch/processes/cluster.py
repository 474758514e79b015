"""Rounds on a Dask or Ray cluster, carried by joblib's registered backends.

Every solve runs in a supervised process beside the cluster's own worker, with or without a time
limit: a solve that crashes must not take the cluster worker, and the other solves there, with it.
"""

from __future__ import annotations

import importlib
import math
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, final
from uuid import uuid4

import joblib

from zo_bilevel.solve.dispatch.processes.pool import (
    Limits,
    RoundCancelledError,
    WorkerPool,
    run_job,
)
from zo_bilevel.solve.dispatch.processes.supervisor import Shipment, SupervisedWorker
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import InnerSolverError, InputError, MissingPackageError

ROUND_ATTEMPTS = 3
"""How often what the cluster lost (a machine, not a solve) is sent again."""
IDLE_LIMIT_S = 60.0
"""When the solver processes of a cluster worker with nothing to do are ended."""
RAY_BACKEND = "zo_bilevel_ray"
Answers: TypeAlias = Generator[tuple[int, Outcome], None, None]


@final
class Cluster:
    """A running Dask or Ray cluster as joblib sees it.

    Args:
        backend: "dask" or "ray".
        n_jobs: How many solves at once; Dask ignores it.
        limits: Time limit and retries.
        quorum: Share of a round to wait for.

    Raises:
        MissingPackageError: If the package is not installed.
        InputError: If no cluster has been started or connected to.
    """

    def __init__(self, backend: str, n_jobs: int, limits: Limits, quorum: float | None) -> None:
        self._limits, self._quorum = limits, quorum
        if backend == "dask":
            self._client = _require_dask()
            options: dict[str, Any] = {"backend": "dask", "pure": False}
        else:
            self._client, options = None, {"backend": _require_ray()}
        with joblib.parallel_config(**options):
            self._parallel = joblib.Parallel(
                n_jobs=n_jobs,
                return_as="generator_unordered",
                batch_size=1,
                pre_dispatch="all",
            )
            self.num_workers = max(1, int(joblib.effective_n_jobs(n_jobs)))
        self._entered = False

    def run(self, shipment: Shipment, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run the jobs on the cluster; outcomes come in the order in which they finish."""
        left = {job.index: job for job in jobs}
        wanted = len(jobs) if self._quorum is None else math.ceil(self._quorum * len(jobs) - 1e-9)
        ended = 0
        for attempt in range(ROUND_ATTEMPTS):
            try:
                with closing(self._answers(shipment, list(left.values()))) as answers:
                    for index, outcome in answers:
                        del left[index]
                        ended += outcome.status != "timed_out"
                        yield index, outcome
                        if ended >= wanted:
                            break
            except InnerSolverError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a cluster raises
                if attempt + 1 < ROUND_ATTEMPTS:
                    continue
                lost = f"the cluster lost it: {type(error).__name__}: {error}"
                yield from ((index, Outcome("crashed", error=lost)) for index in left)
                return
            break
        cancelled = f"cancelled: quorum={self._quorum} of the round was reached"
        yield from ((index, Outcome("timed_out", error=cancelled)) for index in left)

    def _answers(self, shipment: Shipment, jobs: Sequence[Job]) -> Answers:
        """Have joblib run the jobs; whatever ends this early cancels them."""
        if not self._entered:
            self._parallel.__enter__()  # keeps Ray's actors from round to round
            self._entered = True
        token = uuid4().hex
        task = joblib.delayed(solve_on_cluster)
        answers = self._parallel(task(shipment, job, self._limits, token) for job in jobs)
        finished = False
        try:
            for answer in answers:  # noqa: UP028 - `yield from` would close them before `_cancel`
                yield answer
            finished = True
        finally:
            if not finished:
                self._cancel(token, answers)

    def _cancel(self, token: str, answers: Any) -> None:  # noqa: ANN401 - joblib's generator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of what is cancelled on purpose
            answers.close()
        self._everywhere(end_solves, token)

    def _everywhere(self, function: Callable[..., None], *arguments: str) -> None:
        """Call a function in every Dask worker; Ray's actors end with joblib's pool."""
        if self._client is not None and self._client.status == "running":
            self._client.run(function, *arguments)

    def close(self) -> None:
        """Let go of the cluster's workers; the cluster itself goes on."""
        if self._entered:
            self._entered = False
            self._parallel.__exit__(None, None, None)
            self._everywhere(close_local_pool)


def solve_on_cluster(
    shipment: Shipment, job: Job, limits: Limits, token: str
) -> tuple[int, Outcome]:
    """Run one job in a supervised process of the machine that this is called on."""

    def started(worker: SupervisedWorker) -> None:
        with _here.lock:
            _here.check(token)
            _here.running.setdefault(token, set()).add(worker)

    try:
        with _here.in_use(token) as pool:
            outcome = run_job(pool, _local(shipment), job, limits, started)
    except RoundCancelledError:
        outcome = Outcome("timed_out", error="cancelled")
    return job.index, outcome


def end_solves(token: str) -> None:
    """Kill what runs here of one round, and start no more of it."""
    with _here.lock:
        _here.cancelled.append(token)
        for worker in _here.running.pop(token, ()):
            worker.kill()


def close_local_pool() -> None:
    """End the solver processes beside this cluster worker."""
    _here.close()


class _Here:
    """The solver processes beside one cluster worker, shared by its threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.running: dict[str, set[SupervisedWorker]] = {}
        self.cancelled: deque[str] = deque(maxlen=1000)
        self._pool: WorkerPool | None = None
        self._users = 0
        self._timer: threading.Timer | None = None

    def check(self, token: str) -> None:
        """Refuse work for a round that was cancelled."""
        if token in self.cancelled:
            raise RoundCancelledError

    @contextmanager
    def in_use(self, token: str) -> Iterator[WorkerPool]:
        """Lend the pool to one task; with no task for a while it is closed."""
        with self.lock:
            self.check(token)
            self._users += 1
            if self._timer is not None:
                self._timer.cancel()
            if self._pool is None:
                self._pool = WorkerPool(sys.maxsize)  # the cluster decides how many run at once
            pool = self._pool
        try:
            yield pool
        finally:
            self._leave(token)

    def _leave(self, token: str) -> None:
        with self.lock:
            self._users -= 1
            if self._users:
                return
            self.running.pop(token, None)
            self._timer = threading.Timer(IDLE_LIMIT_S, self._close_if_idle)
            self._timer.daemon = True
            self._timer.start()

    def _close_if_idle(self) -> None:
        with self.lock:
            idle = self._users == 0
        if idle:
            self.close()

    def close(self) -> None:
        with self.lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


_here = _Here()


def _local(shipment: Shipment) -> Shipment:
    """A shipment as this machine can use it: its own paths first, then the sender's, if here."""
    own = set(sys.path)
    extra = [path for path in shipment.path if path not in own and Path(path).exists()]
    folder = shipment.folder if Path(shipment.folder).is_dir() else str(Path.cwd())
    return replace(shipment, path=(*sys.path, *extra), folder=folder)


def _require_dask() -> Any:  # noqa: ANN401 - an optional package's client
    """The current Dask client."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise MissingPackageError(
            "backend='dask' needs Dask: pip install 'zo-bilevel[dask]'"
        ) from error
    try:
        return distributed.get_client()
    except ValueError as error:
        raise InputError(
            "backend='dask' needs a cluster: create a dask.distributed.Client(...) before the run"
        ) from error


def _require_ray() -> str:
    """Register Ray's joblib backend, once it can give answers as they come.

    Ray's class inherits a flag from joblib's multiprocessing backend that forbids generators; Ray's
    own pool has what they need, and without them a whole round would wait for its slowest solve
    before the first answer could be stored.
    """
    try:
        ray = importlib.import_module("ray")
        base = importlib.import_module("ray.util.joblib.ray_backend").RayBackend
    except ImportError as error:
        raise MissingPackageError(
            "backend='ray' needs Ray: pip install 'zo-bilevel[ray]'"
        ) from error
    if not ray.is_initialized():
        raise InputError("backend='ray' needs a cluster: call ray.init(...) before the run")
    streaming = type("StreamingRayBackend", (base,), {"supports_return_generator": True})
    joblib.register_parallel_backend(RAY_BACKEND, streaming)
    return RAY_BACKEND
