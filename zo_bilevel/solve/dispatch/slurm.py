"""Solves as jobs of a cluster that queues them, by submitit."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, final

from zo_bilevel.solve.dispatch.base import Solve, Stream, WithBlock, answers_until
from zo_bilevel.solve.dispatch.joblib import shipment_of
from zo_bilevel.solve.dispatch.processes.pool import Limits
from zo_bilevel.solve.dispatch.processes.supervisor import Shipment
from zo_bilevel.solve.dispatch.slurm_jobs import AskedSolve, SolveTask, key_of
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.errors import InputError, shown, unknown_name_message
from zo_bilevel.support.packages import import_optional

CLUSTERS: Final = ("slurm", "local", "debug")
SHORTEST_WAIT_S, LONGEST_WAIT_S, WAIT_SHARE = 0.05, 5.0, 0.02


@final
class Slurm(WithBlock):
    """Submit each round as a job array to Slurm.

    A job that is preempted is queued again, and one that the queue loses is submitted anew, four
    times at most. A solve runs in a process of its own beside the job's: one that crashes is a
    value. When the run is interrupted (Ctrl-C, SIGTERM, `kill -9`) its jobs stay in the queue; the
    same run collects them when it is started again with this folder. Jobs that nobody needs any
    more, as time is up or the target reached, are cancelled.

    Args:
        folder: For jobs and their results, on a disk that all machines see; made when missing, for
            its owner alone, since results there are unpickled.
        cluster: "slurm"; "local" runs the jobs as processes of this machine and "debug" in this
            process, to try a program out.
        timeout_s: Seconds that a solve may take, or `None` for as long as the job may.
        **parameters: As submitit names them: `timeout_min=60` (of a job, 5 by default),
            `mem_gb=8`, `cpus_per_task=4`, `slurm_partition="long"`,
            `slurm_array_parallelism=100`.

    Raises:
        InputError: If an argument breaks its rule, or Slurm is not there or refuses the jobs.
        MissingPackageError: If submitit is not installed.

    Example:
        >>> import tempfile
        >>> from zo_bilevel.solve.evaluation import Job
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Slurm(folder, cluster="debug") as dispatcher:
        ...         solve = Solve(lambda phi: phi["a"] ** 2)
        ...         ((_, outcome),) = dispatcher.run(solve, [Job(0, {"a": 3.0}, 0)])
        >>> outcome.theta.item()
        9.0
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        cluster: str = "slurm",
        timeout_s: float | None = None,
        **parameters: Any,  # noqa: ANN401 - as submitit has them
    ) -> None:
        if cluster not in CLUSTERS:
            raise InputError(unknown_name_message("cluster", str(cluster), CLUSTERS))
        timeout_s = None if timeout_s is None else finite_number("timeout_s", timeout_s, "> 0")
        self.folder, self.cluster = Path(folder).absolute(), cluster
        self._limits = Limits(timeout_s)
        submitit: Any = import_optional("submitit", "Slurm", "slurm")
        kinds = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
        self._kind = kinds.get(cluster)
        self._keys = self.folder / "waiting"
        self._keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            # a solve that did not end in its time would not end in the same time again
            self._executor = submitit.AutoExecutor(
                self.folder, cluster, slurm_max_num_timeout=0, local_max_num_timeout=0
            )
            self._executor.update_parameters(**parameters)
        except Exception as error:
            raise InputError(f"Slurm refuses {parameters or cluster!r}: {shown(error)}") from error
        self._shipped: tuple[Solve, Shipment, str] | None = None

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Submit the jobs and wait for their results.

        Yields:
            Each job's index and outcome as it arrives. Closing cancels the others.

        Raises:
            InputError: If the queue refuses the jobs, or the inner solver cannot be pickled.
        """
        return self.run_within(solve, jobs, math.inf)

    def run_within(
        self, solve: Solve, jobs: Sequence[Job], seconds: float
    ) -> Iterator[tuple[int, Outcome]]:
        """As `run`; jobs that are late are cancelled and have no outcome."""
        deadline = time.monotonic() + seconds
        with closing(self._stream(solve)) as stream:
            stream.submit_all(jobs)
            yield from answers_until(stream, len(jobs), deadline)

    def stream(self, solve: Solve) -> Stream:
        """Run solves one by one: each is a job of its own."""
        return self._stream(solve)

    def _stream(self, solve: Solve) -> _Stream:
        shipment, identity = self._ship(solve)

        def ask(job: Job) -> AskedSolve:
            asked = AskedSolve(job, self._keys / key_of(identity, job))
            asked.reopen(self._kind, self.folder)
            return asked

        def submit(asked: Sequence[AskedSolve]) -> None:
            self._submit(shipment, asked)

        return _Stream(ask, submit)

    def _submit(self, shipment: Shipment, asked: Sequence[AskedSolve]) -> None:
        if not asked:
            return
        tasks = [SolveTask(shipment, each.job, self._limits) for each in asked]
        try:
            submitted = self._executor.submit_array(tasks)
        except Exception as error:
            raise InputError(
                f"{self.cluster} refused {len(asked)} jobs: {' '.join(shown(error).split())}"
            ) from error
        for each, job in zip(asked, submitted, strict=True):
            each.note(job)

    def _ship(self, solve: Solve) -> tuple[Shipment, str]:
        if self._shipped is None or self._shipped[0] is not solve:
            self._shipped = solve, shipment_of(solve, "slurm"), solve.identity()
        return self._shipped[1:]

    def close(self) -> None:
        """Nothing to let go of: the queue is not ours."""

    def __repr__(self) -> str:
        return f"Slurm({str(self.folder)!r}, cluster={self.cluster!r})"


@final
class _Stream:
    """Jobs of one session of a run."""

    def __init__(
        self, ask: Callable[[Job], AskedSolve], submit: Callable[[Sequence[AskedSolve]], None]
    ) -> None:
        self._ask, self._submit = ask, submit
        self._asked: list[AskedSolve] = []
        self._given: tuple[AskedSolve, bool] | None = None

    def submit(self, job: Job) -> None:
        """Submit a job, or take up one that is there."""
        self.submit_all([job])

    def submit_all(self, jobs: Sequence[Job]) -> None:
        """Submit jobs as one array."""
        self._asked += map(self._ask, jobs)
        self._submit_lost()

    def _submit_lost(self) -> None:
        self._submit([each for each in self._asked if each.submitted is None])

    def next(self, seconds: float) -> tuple[int, Outcome] | None:
        """Wait for the next result; none if that takes longer, or nothing is asked for."""
        self._forget()
        since = now = time.monotonic()
        try:
            while self._asked and now - since <= seconds:
                for each in self._asked:
                    outcome = each.outcome()
                    if outcome is not None:
                        self._given = each, outcome.status == "ok"
                        return each.job.index, outcome
                self._submit_lost()
                now = time.monotonic()
                wait = min(max(WAIT_SHARE * (now - since), SHORTEST_WAIT_S), LONGEST_WAIT_S)
                time.sleep(max(min(wait, seconds - (now - since)), 0.0))
        except KeyboardInterrupt:
            self._asked.clear()  # they go on, and the next run collects them
            raise
        return None

    def _forget(self) -> None:
        """Clear away the last result; not before whoever asked has stored it."""
        if self._given is not None:
            asked, is_good = self._given
            self._asked.remove(asked)
            asked.forget(is_good=is_good)
            self._given = None

    def close(self) -> None:
        """Cancel what nobody needs any more."""
        self._forget()
        for each in self._asked:
            each.cancel()
        self._asked.clear()
