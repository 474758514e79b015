"""Cross-validation of a soft prompt: how long to tune it, and how far to go back, in the mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from zo_bilevel.adapters.prompts.prompt_selection import SHRINKAGE_SHARES, Phi, Record
from zo_bilevel.support.errors import InputError

NUM_CHECKPOINTS = 10
"""Lengths of a run that are compared, the whole one included."""


def folded(labels: Sequence[str], folds: int) -> list[tuple[list[int], list[int]]]:
    """For each part of the examples: the places of all others, and its own.

    Args:
        labels: The class of each example.
        folds: Parts; each has examples of every class.

    Raises:
        InputError: If a class has fewer examples than there are parts, or there is a single part.
    """
    most = min(labels.count(name) for name in set(labels))
    if not 2 <= folds <= most:
        raise InputError(f"folds must be 0 or in 2..{most}, the shots, got {folds}")
    part = [labels[:place].count(name) % folds for place, name in enumerate(labels)]
    sides = [
        (np.flatnonzero(np.not_equal(part, k)), np.flatnonzero(np.equal(part, k)))
        for k in range(folds)
    ]
    return [(others.tolist(), own.tolist()) for others, own in sides]


@final
class Path:
    """The best prompt of a run after each of its calls; none before the first that worked."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Phi]] = []

    def see(self, record: Record) -> None:
        """Take note of a solve."""
        if record.status == "ok" and record.loss <= record.best_loss:
            phi = {name: np.array(value) for name, value in record.phi.items()}
            self._steps.append((record.solve, phi))

    def after(self, calls: int, share: float = 1.0) -> Phi | None:
        """A share of the way from the hand-written prompt, which is `None`."""
        known = [phi for solve, phi in self._steps if solve <= calls]
        return {name: share * value for name, value in known[-1].items()} if known else None


def best_length(
    paths: Sequence[Path], judges: Sequence[Callable[[Phi | None], float]], calls: int
) -> tuple[int, float]:
    """The calls and the share of the way with the lowest loss, in the mean over the parts.

    Args:
        paths: The run on all examples but a part, for each part.
        judges: Cross-entropy of that part under a prompt; `None` is the hand-written one.
        calls: That each run had.

    Returns:
        Both; no calls where the hand-written prompt is best.
    """
    lengths = np.unique(
        np.linspace(calls / NUM_CHECKPOINTS, calls, NUM_CHECKPOINTS).round().astype(int)
    )
    tried = [
        (int(length), share) for length in lengths if length for share in (*SHRINKAGE_SHARES, 1.0)
    ]

    def mean_loss(choice: tuple[int, float]) -> float:
        pairs = zip(paths, judges, strict=True)
        return float(np.mean([judge(path.after(*choice)) for path, judge in pairs]))

    return min([(0, 0.0), *tried], key=mean_loss)
