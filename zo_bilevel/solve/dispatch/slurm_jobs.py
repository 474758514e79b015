"""One solve as a job of a cluster that queues it, and what became of that job."""

import gc
import hashlib
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any, Final, final

from zo_bilevel.problem.content import UntellableError, content_digest
from zo_bilevel.solve.dispatch.processes.pool import Limits, WorkerPool, run_job
from zo_bilevel.solve.dispatch.processes.supervisor import Shipment
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import InputError, shown

MOST_SUBMISSIONS: Final = 4
"""How often a job is submitted that the queue loses: preempted for good, its node gone."""
LATE_RESULT_S: Final = 15.0
"""How long after its end the result of a job may reach a shared folder."""


@final
class SolveTask:
    """One solve as a job runs it; whole again after preemption."""

    def __init__(self, shipment: Shipment, job: Job, limits: Limits) -> None:
        self._asked = shipment, job, limits

    def __call__(self) -> Outcome:
        """Solve in a process of its own."""
        pool = WorkerPool(1)
        try:
            return run_job(pool, *self._asked)
        finally:
            pool.close()

    def checkpoint(self) -> Any:  # noqa: ANN401 - of submitit
        """What is queued again after preemption: all of it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@final
class AskedSolve:
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

    def reopen(self, kind: Any, folder: Path) -> None:  # noqa: ANN401 - of submitit
        """Take up the job of a run that was interrupted, if there is one."""
        if kind is not None and self._key.exists():
            self.submitted, self._submissions = kind(folder, self._key.read_text()), 1

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


def key_of(identity: str, job: Job) -> str:
    """What the same solve of a run that is started again is known by.

    Raises:
        InputError: If its values cannot be told from others.
    """
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
        with warnings.catch_warnings():
            if hasattr(job, "_submission"):  # submitit's debug executor leaves its logs open
                warnings.simplefilter("ignore", ResourceWarning)
            outcome = job.result()
            if hasattr(job, "_submission"):
                gc.collect()
    except Exception as error:  # noqa: BLE001 - whatever ended the job
        text = " ".join(shown(error).split())
        is_late = "not requeued because: timed-out" in text
        return Outcome("timed_out" if is_late else "crashed", error=f"job {job.job_id}: {text}")
    if not isinstance(outcome, Outcome):
        return Outcome("crashed", error=f"job {job.job_id} gave a {type(outcome).__name__}")
    return outcome
