"""What a run tells while it goes on: to its callback, to Python's logging, to whoever waits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, final

from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.progress import BarProgress, LineProgress, Progress, SilentProgress
from zo_bilevel.run.result import Record, Result

Callback: TypeAlias = Callable[[Record], None]

LOG = logging.getLogger("zo_bilevel")
LOG.addHandler(logging.NullHandler())


@contextmanager
def reporting(
    name: str, ledger: Ledger, progress: Progress | bool, callback: Callback | None
) -> Iterator[Reporter]:
    """Report on a run, an exception that ends it included."""
    if isinstance(progress, bool):
        progress = _default_progress() if progress else SilentProgress()
    LOG.info("%s started", name)
    try:
        with progress:
            yield Reporter(name, ledger, progress, callback)
    except BaseException as error:
        LOG.error("%s failed: %s: %s", name, type(error).__name__, error)
        raise


def _default_progress() -> Progress:
    return BarProgress() if sys.stderr.isatty() else LineProgress(LOG.info)


@final
class Reporter:
    """Takes the records of one run, in order; see `reporting`."""

    def __init__(
        self, name: str, ledger: Ledger, progress: Progress, callback: Callback | None
    ) -> None:
        self._name, self._ledger = name, ledger
        self._progress, self._callback = progress, callback
        self._restarted_in = 0

    def __call__(self, record: Record) -> None:
        """Report one solve."""
        if record.status != "ok":
            LOG.warning("solve %d %s: %s", record.solve, record.status, record.error)
        if record.role == "restart" and record.round != self._restarted_in:
            self._restarted_in = record.round
            LOG.info("restart after %d solves, loss %.6g", record.solve - 1, record.best_loss)
        if not isinstance(self._progress, SilentProgress):
            self._progress.update(self._share_spent(record), self._text(record), record.best_loss)
        if self._callback is not None:
            self._callback(record)

    def finished(self, result: Result) -> None:
        """Report the end."""
        LOG.info("%s stopped: %s", self._name, result)

    def _share_spent(self, record: Record) -> float:
        budget = self._ledger.budget
        spent = (
            (record.solve, budget.max_solves),
            (record.seconds, budget.max_seconds),
            (record.cost, budget.max_cost),
        )
        return min(max(done / limit for done, limit in spent if limit is not None), 1.0)

    def _text(self, record: Record) -> str:
        limit = self._ledger.budget.max_solves
        failed = self._ledger.failures.total()
        budget = "" if limit is None else f" of {limit}"
        rate = record.solve / max(record.seconds, 1e-9)
        lost = f", {failed} failed" if failed else ""
        return f"{self._name}: {record.solve}{budget} solves{lost}, {rate:.3g}/s"
