"""Solves as jobs of a cluster that queues them, by submitit."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, final

from zo_bilevel.problem.content import UntellableError, content_digest
from zo_bilevel.solve.dispatch.base import Solve, WithBlock
from zo_bilevel.solve.dispatch.joblib import shipment_of
from zo_bilevel.solve.dispatch.processes.pool import Limits, WorkerPool, run_job
from zo_bilevel.solve.dispatch.processes.supervisor import Shipment
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.errors import InputError, shown, unknown_name_message
from zo_bilevel.support.packages import import_optional

CLUSTERS: Final = ("slurm", "local", "debug")
MOST_SUBMISSIONS: Final = 4
"""How often a job is submitted that the queue loses: preempted for good, its node gone."""
LATE_RESULT_S: Final = 15.0
"""How long after its end the result of a job may reach a shared folder."""
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

        Args:
            solve: Runs one job.
            jobs: The round.

        Yields:
            Each job's index and outcome as it arrives. Closing cancels the others.

        Raises:
            InputError: If the queue refuses the jobs, or the inner solver cannot be pickled.
        """
        return self.run_within(solve, jobs, math.inf)

    def run_within(
        self, solve: Solve, jobs: Sequence[Job], seconds: float
    ) -> Iterator[tuple[int, Outcome]]:
        """As `run`; jobs that are late are cancelled and have no outcome.

        Args:
            solve: As in `run`.
            jobs: The round.
            seconds: From now.
        """
        deadline = time.monotonic() + seconds
        shipment, identity = self._ship(solve)
        asked = [_Asked(job, self._keys / _key(identity, job)) for job in jobs]
        self._submit(shipment, [each for each in asked if not each.reopen(self._kind, self.folder)])
        since = time.monotonic()
        try:
            while asked:
                for each in list(asked):
                    outcome = each.outcome()
                    if outcome is not None:
                        yield each.job.index, outcome
                        asked.remove(each)
                        each.forget(is_good=outcome.status == "ok")
                        since = time.monotonic()
                self._submit(shipment, [each for each in asked if each.submitted is None])
                now = time.monotonic()
                if now > deadline or not asked:
                    break
                wait = min(max(WAIT_SHARE * (now - since), SHORTEST_WAIT_S), LONGEST_WAIT_S)
                time.sleep(min(wait, max(deadline - now, 0.0)))
        except KeyboardInterrupt:
            asked.clear()  # they go on, and the next run collects them
            raise
        finally:
            for each in asked:
                each.cancel()

    def _submit(self, shipment: Shipment, asked: Sequence[_Asked]) -> None:
        if not asked:
            return
        try:
            with self._executor.batch():
                tasks = [_Task(shipment, each.job, self._limits) for each in asked]
                submitted = [self._executor.submit(task) for task in tasks]
            for each, job in zip(asked, submitted, strict=True):
                each.note(job)
        except Exception as error:
            raise InputError(
                f"{self.cluster} refused {len(asked)} jobs: {' '.join(shown(error).split())}"
            ) from error

    def _ship(self, solve: Solve) -> tuple[Shipment, str]:
        if self._shipped is None or self._shipped[0] is not solve:
            self._shipped = solve, shipment_of(solve, "slurm"), solve.identity()
        return self._shipped[1:]

    def close(self) -> None:
        """Nothing to let go of: the queue is not ours."""

    def __repr__(self) -> str:
        return f"Slurm({str(self.folder)!r}, cluster={self.cluster!r})"


@final
class _Task:
    """One solve as a job runs it; whole again after preemption."""

    def __init__(self, shipment: Shipment, job: Job, limits: Limits) -> None:
        self._asked = shipment, job, limits

    def __call__(self) -> Outcome:
        pool = WorkerPool(1)
        try:
            return run_job(pool, *self._asked)
        finally:
            pool.close()

    def checkpoint(self) -> Any:  # noqa: ANN401 - of submitit
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@final
class _Asked:
    """A solve of a round, and the job that has it."""

    def __init__(self, job: Job, key: Path) -> None:
        self.job = job
        self.submitted: Any = None
        self._key = key
        self._submissions = 0
        self._gone_since = math.inf

    def note(self, submitted: Any) -> None:  # noqa: ANN401 - a job of submitit
        """Remember the job, here and in the folder."""
        self.submitted, self._gone_since = submitted, math.inf
        self._submissions += 1
        partial = self._key.with_suffix(".part")
        partial.write_text(submitted.job_id)
        partial.replace(self._key)

    def reopen(self, kind: Any, folder: Path) -> bool:  # noqa: ANN401 - of submitit
        """Take up the job of a run that was interrupted, if there is one."""
        if kind is not None and self._key.exists():
            self.submitted, self._submissions = kind(folder, self._key.read_text()), 1
        return self.submitted is not None

    def outcome(self) -> Outcome | None:
        """What the job gave; nothing while it runs, or when it is to be submitted anew."""
        job = self.submitted
        if _has_result(job):
            return _result(job)
        if not _is_gone(job):
            self._gone_since = math.inf
            return None
        self._gone_since = min(self._gone_since, time.monotonic())
        if time.monotonic() - self._gone_since < LATE_RESULT_S:
            return None
        if job.state.startswith("TIMEOUT"):
            return Outcome("timed_out", error=f"job {job.job_id} was ended at its time limit")
        if self._submissions < MOST_SUBMISSIONS:
            self.submitted = None
            return None
        error = f"the queue lost it {self._submissions} times; job {job.job_id} is {job.state}"
        return Outcome("crashed", error=error)

    def forget(self, *, is_good: bool) -> None:
        """Whoever asked has the outcome: what is left in the folder is in the way."""
        self._key.unlink(missing_ok=True)
        paths = self.submitted.paths
        files = [paths.submitted_pickle, paths.result_pickle, paths.submission_file]
        files += [paths.stdout, paths.stderr] if is_good else []
        for file in files:
            file.unlink(missing_ok=True)

    def cancel(self) -> None:
        """Nobody needs it any more."""
        if self.submitted is not None:
            self.submitted.cancel(check=False)
        self._key.unlink(missing_ok=True)


def _key(identity: str, job: Job) -> str:
    try:
        held = content_digest([job.phi, job.derivative])
    except UntellableError as error:
        raise InputError(f"Slurm cannot tell solves apart by {error}") from error
    asked = f"{identity}\0{job.index}\0{job.seed}\0".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(asked + held, digest_size=16).hexdigest()


def _has_result(job: Any) -> bool:  # noqa: ANN401 - of submitit
    return hasattr(job, "_submission") or bool(job.paths.result_pickle.exists())


def _is_gone(job: Any) -> bool:  # noqa: ANN401 - of submitit
    """Whether a job without result has ended, or was preempted and not queued again."""
    if getattr(job, "_process", job) is None:  # of another process of this machine
        try:
            os.kill(int(job.job_id), 0)
        except OSError:
            return True
        return False
    return bool(job.done()) or str(job.state).startswith("PREEMPTED")


def _result(job: Any) -> Outcome:  # noqa: ANN401 - of submitit
    try:
        outcome = job.result()
    except Exception as error:  # noqa: BLE001 - whatever ended the job
        text = " ".join(shown(error).split())
        is_late = "not requeued because: timed-out" in text
        return Outcome("timed_out" if is_late else "crashed", error=f"job {job.job_id}: {text}")
    if not isinstance(outcome, Outcome):
        return Outcome("crashed", error=f"job {job.job_id} gave a {type(outcome).__name__}")
    return outcome
