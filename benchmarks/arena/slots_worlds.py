"""Worlds of prompt slots: 5 slots of 6 options, 64 examples, each answered right or wrong.

A combination's answer to an example is right with a probability that falls with the example's
difficulty; what counts is the share of right answers over all examples there could be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Kind = Literal["additive", "pairs", "strong", "sparse", "alike"]

SLOTS, OPTIONS, EXAMPLES = 5, 6, 64
SPREAD = 0.5
"""Standard deviation of an option's effect, and of a pair's, in log odds."""
FRESH_EXAMPLES = 2000


@dataclass(frozen=True)
class World:
    """Effects of options and pairs on the log odds of a right answer.

    Args:
        effects: Shape `(SLOTS, OPTIONS)`.
        pairs: Slots that act together.
        together: For each pair a table of shape `(OPTIONS, OPTIONS)`.
        difficulties: Of the examples at hand, shape `(EXAMPLES,)`.
        seed: Fixes the answers of a model without temperature.
    """

    effects: FloatArray
    pairs: tuple[tuple[int, int], ...]
    together: FloatArray
    difficulties: FloatArray
    seed: int

    def log_odds(self, picks: FloatArray) -> FloatArray:
        """Of combinations, against an example of difficulty 0.

        Args:
            picks: Options, shape `(..., SLOTS)`, whole numbers.

        Returns:
            Shape `(...)`.
        """
        total = 0.3 + sum(self.effects[k][picks[..., k]] for k in range(SLOTS))
        for (a, b), table in zip(self.pairs, self.together, strict=True):
            total = total + table[picks[..., a], picks[..., b]]
        return np.asarray(total)

    def chances(self, picks: Sequence[int]) -> FloatArray:
        """Probability of a right answer to each example, shape `(EXAMPLES,)`."""
        return 1 / (1 + np.exp(self.difficulties - self.log_odds(np.asarray(picks))))

    def fixed_answers(self, picks: Sequence[int]) -> FloatArray:
        """What a model without temperature answers, always the same: 1 right, 0 wrong."""
        place = int(np.ravel_multi_index(tuple(picks), (OPTIONS,) * SLOTS))
        draws = np.random.default_rng([self.seed, place]).random(EXAMPLES)
        return (draws < self.chances(picks)).astype(float)

    def accuracies(self) -> FloatArray:
        """True share of right answers of every combination, shape `(OPTIONS,) * SLOTS`."""
        grid = np.stack(np.meshgrid(*[np.arange(OPTIONS)] * SLOTS, indexing="ij"), axis=-1)
        fresh = np.sort(np.random.default_rng(9).normal(0, 1, FRESH_EXAMPLES))
        odds, places = np.unique(self.log_odds(grid).ravel(), return_inverse=True)
        knots = np.linspace(odds[0], odds[-1], 400)  # smooth in the log odds: interpolate
        means = [(1 / (1 + np.exp(fresh - knot))).mean() for knot in knots]
        return np.asarray(np.interp(odds, knots, means)[places].reshape((OPTIONS,) * SLOTS))


def make_world(kind: Kind, seed: int) -> World:
    """A world of one kind.

    Args:
        kind: "additive": every slot for itself; "pairs": three pairs of slots act together as
            strongly as the slots alone; "strong": six pairs do, twice as strongly; "sparse":
            only two slots matter, twice as much; "alike": the options of a slot fall into two
            sorts, and those of a sort are nearly the same.
        seed: >= 0.
    """
    rng = np.random.default_rng([7, seed])
    effects = rng.normal(0, SPREAD, (SLOTS, OPTIONS))
    if kind == "sparse":
        effects *= 2 * np.isin(np.arange(SLOTS), rng.choice(SLOTS, 2, replace=False))[:, None]
    if kind == "alike":
        sorts = rng.permuted(np.tile([0, 0, 0, 1, 1, 1], (SLOTS, 1)), axis=1)
        levels = rng.normal(0, 1.5 * SPREAD, (SLOTS, 2))
        effects = np.take_along_axis(levels, sorts, axis=1) + 0.1 * effects
    count = {"pairs": 3, "strong": 6}.get(kind, 0)
    strength = 2 * SPREAD if kind == "strong" else SPREAD
    pairs = tuple(tuple(rng.choice(SLOTS, 2, replace=False).tolist()) for _ in range(count))
    together = rng.normal(0, strength, (count, OPTIONS, OPTIONS))
    return World(effects, pairs, together, rng.normal(0, 1, EXAMPLES), seed)
