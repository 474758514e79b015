"""Which of the prompts on a method's way is kept: the best on a validation share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import numpy as np

Phi: TypeAlias = Mapping[str, Any]
Record: TypeAlias = Any
"""A `zb.Record`: what a run tells its callback of a solve."""
MOST_JUDGED = 30
"""Prompts on the way that are judged."""
SHRINKAGE_SHARES = (0.25, 0.5, 0.75)
"""Shares of the way from the hand-written prompt that are judged too: a penalty on the latent
numbers, chosen on the validation share."""
LEAST_CALLS = 200
"""No run is stopped early before so many calls, nor before twice those of its best prompt."""


@final
class Selection:
    """Judges prompts that were the best so far, and ends a run that gets no better by that.

    Args:
        judge: Cross-entropy of the validation share under a prompt; `None` is the hand-written
            one. Without it the last prompt is kept.
        calls: Calls that the run has.
    """

    def __init__(self, judge: Callable[[Phi | None], float] | None, calls: int) -> None:
        self._judge, self._gap = judge, max(1, calls // MOST_JUDGED)
        self._last: tuple[int, Phi] | None = None
        self._is_judged = True
        start = np.inf if judge is None else judge(None)
        self.judged: list[tuple[int, float, Phi | None]] = [(0, start, None)]

    def see(self, record: Record) -> None:
        """Take note of a solve; `StopIteration` if nothing better was found for too long."""
        if record.status == "ok" and record.loss <= record.best_loss:
            phi = {name: np.array(value) for name, value in record.phi.items()}
            self._last, self._is_judged = (record.solve, phi), False
        if self._judge is None:
            return
        if record.solve >= self.judged[-1][0] + self._gap:
            self._judge_last()
        if record.solve >= max(LEAST_CALLS, 2 * self.best(shrunk=False)[0]):
            self._judge_last()
            if record.solve >= 2 * self.best(shrunk=False)[0]:
                raise StopIteration("the validation share got no better")

    def _judge_last(self) -> None:
        if self._judge is not None and self._last is not None and not self._is_judged:
            solve, phi = self._last
            self.judged.append((solve, self._judge(phi), phi))
            self._is_judged = True

    def best(self, until: int | None = None, *, shrunk: bool = True) -> tuple[int, Phi | None]:
        """The best prompt, and the call it was found at; `None` is the hand-written one.

        Args:
            until: Of the first so many calls only.
            shrunk: Whether to try prompts between it and the hand-written one.
        """
        if self._judge is None:
            return (0, None) if self._last is None else self._last
        known = [row for row in self.judged if until is None or row[0] <= until]
        solve, loss, phi = min(known, key=lambda row: row[1])
        if not shrunk:
            return solve, phi
        if until is None:
            self._judge_last()
            known = self.judged
            solve, loss, phi = min(known, key=lambda row: row[1])
        for place, _, whole in {row[0]: row for row in ((solve, loss, phi), known[-1])}.values():
            for share in SHRINKAGE_SHARES:
                if whole is None:
                    continue
                part = {name: share * value for name, value in whole.items()}
                if (found := self._judge(part)) < loss:
                    solve, loss, phi = place, found, part
        return solve, phi
