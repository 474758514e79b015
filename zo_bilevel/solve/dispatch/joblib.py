"""Rounds on all cores or on a cluster, by joblib's names for where the work runs."""

import hashlib
import math
import os
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import cloudpickle
import joblib

from zo_bilevel.problem.module_values import module_values
from zo_bilevel.solve.dispatch.base import Solve, Stream, WithBlock
from zo_bilevel.solve.dispatch.processes.cluster import (
    Cluster,
    ClusterStream,
    running_cluster,
)
from zo_bilevel.solve.dispatch.processes.lanes import Killable, Lanes, Round
from zo_bilevel.solve.dispatch.processes.pool import Limits, WorkerPool, run_job, with_retries
from zo_bilevel.solve.dispatch.processes.supervisor import Shipment
from zo_bilevel.solve.dispatch.processes.worker import guarded
from zo_bilevel.solve.dispatch.unpicklable import unpicklable_message
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.errors import InputError, unknown_name_message

BACKENDS = ("loky", "threading", "dask", "ray")


@final
class Joblib(WithBlock):
    """Run rounds in parallel: on this machine's cores, or on a Dask or Ray cluster.

    With every backend but "threading" a solve runs in a supervised process of its own: one that
    raises, crashes, is killed for memory or outlives `timeout_s` costs that one solve, and its
    whole process tree is gone within a second. The numbers are those of `Serial`, whatever the
    number of workers. Workers start when first needed and stay until `close`, the end of a `with`
    block, or the end of the program.

    Args:
        n_jobs: How many solves run at once; -1 all cores, -2 all but one. Dask uses the cluster's
            cores whatever is said here.
        backend: "loky" (processes here), "threading" (for solvers that release the interpreter
            lock, or wait), "dask", "ray" (start or connect to the cluster first).
        timeout_s: Seconds that one attempt may take, or `None`. Starting a worker does not count.
        retries: Further attempts, with the same seed, of a solve that raised, crashed or timed out.
        quorum: Go on when this share of a round has ended by itself; the others are killed and
            count as timed out. Which ones depends on the clock: a fresh run may give other numbers.
            With a store their outcome is on record, and resuming the run repeats it.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> from zo_bilevel.solve.evaluation import Job
        >>> jobs = [Job(k, {"a": float(k)}, 0) for k in range(4)]
        >>> with Joblib(n_jobs=2, timeout_s=30) as dispatcher:
        ...     outcomes = dict(dispatcher.run(Solve(lambda phi: phi["a"] ** 2), jobs))
        >>> [outcomes[k].theta.item() for k in range(4)]
        [0.0, 1.0, 4.0, 9.0]
    """

    def __init__(
        self,
        n_jobs: int = -1,
        backend: str = "loky",
        *,
        timeout_s: float | None = None,
        retries: int = 0,
        quorum: float | None = None,
    ) -> None:
        _check(n_jobs, backend, timeout_s, retries, quorum)
        self.n_jobs, self.backend = int(n_jobs), backend
        self.timeout_s, self.retries, self.quorum = timeout_s, int(retries), quorum
        self._limits = Limits(timeout_s, self.retries)
        self._pool: WorkerPool | None = None
        self._cluster: Cluster | None = None
        self._shipped: tuple[Solve, Shipment] | None = None
        self._finalizer: Callable[[], Any] | None = None

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run the jobs; outcomes come in the order in which they finish.

        Returns:
            An iterator over each job's index and outcome. Closing it kills what still runs.

        Raises:
            InputError: If the inner solver cannot be pickled, before the first solve.
        """
        return self.run_within(solve, jobs, math.inf)

    def run_within(
        self, solve: Solve, jobs: Sequence[Job], seconds: float
    ) -> Iterator[tuple[int, Outcome]]:
        """As `run`; late solves are killed, except in threads.

        Returns:
            As `run`; jobs that are late have no outcome.
        """
        late = math.inf if self.backend == "threading" else seconds
        return Round(self._lanes(solve), jobs, self.quorum).outcomes(late)

    def stream(self, solve: Solve) -> Stream:
        """Run solves one by one: each starts as soon as a worker is free.

        Raises:
            InputError: If the inner solver cannot be pickled; with a `quorum`, which is a share of
                a round.
        """
        if self.quorum is not None:
            raise InputError(f"quorum is a share of a round, and there are none, got {self.quorum}")
        return self._lanes(solve)

    def _lanes(self, solve: Solve) -> Stream:
        if self.backend in ("dask", "ray"):
            cluster = self._get_cluster()
            return ClusterStream(cluster, self._ship(solve), self._limits)
        if self.backend == "threading":
            return Lanes(_run_in_thread(solve, self._limits), self.num_workers)
        shipment, pool = self._ship(solve), self._get_pool()

        def run_on_worker(job: Job, started: Callable[[Killable], None]) -> Outcome:
            return run_job(pool, shipment, job, self._limits, started)

        return Lanes(run_on_worker, pool.size)

    @property
    def num_workers(self) -> int:
        """How many solves run at once."""
        if self.backend in ("dask", "ray"):
            return self._get_cluster().num_workers
        if self.n_jobs > 0:
            return self.n_jobs
        return max(1, int(joblib.cpu_count()) + 1 + self.n_jobs)

    def close(self) -> None:
        """End the workers; the dispatcher may be used again afterwards."""
        finalizer, self._finalizer = self._finalizer, None
        self._pool = self._cluster = self._shipped = None
        if finalizer is not None:
            finalizer()

    def _get_pool(self) -> WorkerPool:
        if self._pool is None or not self._pool.is_own:
            self._pool = WorkerPool(self.num_workers)
            self._finalizer = weakref.finalize(self, self._pool.close)
        return self._pool

    def _get_cluster(self) -> Cluster:
        if self._cluster is None:
            self._cluster = running_cluster(self.backend, self.n_jobs)
            self._finalizer = weakref.finalize(self, self._cluster.close)
        return self._cluster

    def _ship(self, solve: Solve) -> Shipment:
        """Pickle the solver, once a run: between two runs the same object may have changed."""
        if self._shipped is None or self._shipped[0] is not solve:
            self._shipped = solve, shipment_of(solve, self.backend)
        return self._shipped[1]

    def __repr__(self) -> str:
        words = [f"n_jobs={self.n_jobs}", f"backend={self.backend!r}"]
        if self.timeout_s is not None:
            words.append(f"timeout_s={self.timeout_s:g}")
        if self.retries:
            words.append(f"retries={self.retries}")
        if self.quorum is not None:
            words.append(f"quorum={self.quorum:g}")
        return f"Joblib({', '.join(words)})"


def shipment_of(solve: Solve, backend: str = "loky") -> Shipment:
    """The solver as it travels to a worker process.

    Raises:
        InputError: If the inner solver cannot be pickled.
    """
    if "__mp_main__" in sys.modules:  # what a script is called in a spawned child
        cloudpickle.register_pickle_by_value(sys.modules["__mp_main__"])
    try:
        values = module_values(solve.inner, cloudpickle.list_registry_pickle_by_value())
        body = pickle.dumps(sys.argv) + cloudpickle.dumps(solve) + pickle.dumps(values)
    except Exception as error:
        raise InputError(unpicklable_message(solve.inner, backend, error)) from error
    digest = hashlib.blake2b(body, digest_size=16).digest()
    return Shipment(digest, body, tuple(sys.path), os.getcwd())


def _run_in_thread(
    solve: Solve, limits: Limits
) -> Callable[[Job, Callable[[Killable], None]], Outcome]:
    """Run one job in the lane's own thread, with its retries."""

    def run(job: Job, _: Callable[[Killable], None]) -> Outcome:
        return with_retries(lambda: guarded(solve, job), limits.retries)

    return run


def _check(
    n_jobs: object, backend: object, timeout_s: object, retries: object, quorum: object
) -> None:
    if whole_number("n_jobs", n_jobs) == 0:
        raise InputError("n_jobs must be a whole number > 0, or < 0 for all cores, got 0")
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise InputError(unknown_name_message("backend", str(backend), BACKENDS))
    if timeout_s is not None:
        finite_number("timeout_s", timeout_s, "> 0")
    whole_number("retries", retries, least=0)
    if quorum is not None and not 0 < finite_number("quorum", quorum) <= 1:
        raise InputError(f"quorum must be in (0, 1], got {quorum!r}")
    _check_backend(backend, {"timeout_s": timeout_s, "quorum": quorum})


def _check_backend(backend: str, limits: dict[str, object]) -> None:
    if backend == "loky" and os.name != "posix":
        raise InputError("backend='loky' needs Linux or macOS here; use backend='threading'")
    for name, value in limits.items():
        if backend == "threading" and value is not None:
            raise InputError(
                f"{name} needs processes: a thread cannot be killed; got {name}={value!r} with "
                "backend='threading' (use backend='loky')"
            )
