"""Mixed settings as rows of features, scaled numbers and indices of options; and draws of them."""

import itertools
from collections.abc import Collection, Iterable
from typing import final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.space import HALF_RANGE, Space
from zo_bilevel.support.arrays import FloatArray

NARROWEST_MOVE, WIDEST_MOVE = -2.5, -0.3
"""Decimal logarithms of moves, in shares of a range."""
MEAN_CHANGES = 1.5
"""Features changed by one move, in the mean, beside the one that always is."""
MOVED_SETTINGS, FRESH_SETTINGS = 400, 100
"""Moves from the best settings, and settings drawn from anywhere, that are compared at first."""
NARROWING_ROUNDS = 3
"""Rounds of moves from the best of them."""
MOST_PARENTS = 8
"""Settings that moves start from."""
FEWEST_RANDOM_SETTINGS = 4
"""Drawn before there is a model; one more than there are features, if that is more."""
RANDOM_SHARE = 0.15
"""They are at most this share of the budget."""


@final
class Features:
    """Turns points into rows and back; draws rows.

    Args:
        space: With `N` coordinates; a choice of `n` options takes `n` of them and one feature.

    Attributes:
        size: Features d.
        is_option: Which are options, shape `(d,)`.
        settings: How many settings there are; infinite with any real number.
    """

    def __init__(self, space: Space) -> None:
        starts, counts, options = [], [], []
        for block in space.blocks:
            choice = isinstance(block.parameter, Choice)
            stride = len(block.parameter.options) if isinstance(block.parameter, Choice) else 1
            for start in range(block.start, block.stop, stride):
                starts.append(start)
                options.append(choice)
                is_integer = bool(space.is_integer[start])
                levels = round(float(space.unit[start]) * 2 * HALF_RANGE) if is_integer else 0
                counts.append(stride if choice else levels)
        self._space, self._starts = space, np.array(starts)
        self.is_option: NDArray[np.bool_] = np.array(options, dtype=bool)
        self._levels = np.array([min(count, 1 << 62) for count in counts])  # 0 for reals
        self.size = len(starts)
        self.settings = float(np.prod(np.where(self._levels == 0, np.inf, self._levels)))

    def row(self, x: FloatArray) -> FloatArray:
        """Features of a point, shape `(d,)`."""
        row = x[self._starts].copy()
        for i in np.flatnonzero(self.is_option):
            row[i] = np.argmax(x[self._starts[i] : self._starts[i] + self._levels[i]])
        return np.asarray(self._snapped(row[None])[0])

    def point(self, row: FloatArray) -> FloatArray:
        """The point of a row, shape `(N,)`."""
        x = np.zeros(self._space.size)
        x[self._starts] = row
        for i in np.flatnonzero(self.is_option):
            section = slice(self._starts[i], self._starts[i] + self._levels[i])
            x[section] = np.eye(self._levels[i])[int(row[i])]
        return x

    def draw(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Rows anywhere, shape `(count, d)`."""
        rows = rng.uniform(-HALF_RANGE, HALF_RANGE, (count, self.size))
        rows[:, self.is_option] = self._options(count, rng)
        return self._snapped(rows)

    def moves(self, rows: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Rows with some features changed: numbers near and far, integers at least by one."""
        count, size = rows.shape
        changed = rng.random((count, size)) < MEAN_CHANGES / size
        changed[np.arange(count), rng.integers(size, size=count)] = True
        share = 10.0 ** rng.uniform(NARROWEST_MOVE, WIDEST_MOVE, (count, size))
        step = 2 * HALF_RANGE * share * rng.standard_normal((count, size))
        unit = 2 * HALF_RANGE / np.maximum(self._levels, 1)
        is_integer = (self._levels > 0) & ~self.is_option
        least = np.where(is_integer & (abs(step) < unit), np.copysign(unit, step), step)
        moved = np.where(changed, rows + least, rows)
        fresh = self._options(count, rng)
        moved[:, self.is_option] = np.where(
            changed[:, self.is_option], fresh, rows[:, self.is_option]
        )
        return self._snapped(moved)

    def first_rows(self, count: int) -> FloatArray:
        """Up to so many rows of a finite space in order, shape `(<= count, d)`."""
        levels = (range(min(int(many), count)) for many in self._levels)
        index = np.array(list(itertools.islice(itertools.product(*levels), count)), dtype=float)
        return np.where(self.is_option, index, self._on_level(index))

    def _options(self, count: int, rng: np.random.Generator) -> FloatArray:
        levels = self._levels[self.is_option]
        return np.asarray(np.floor(rng.random((count, len(levels))) * levels))

    def _snapped(self, rows: FloatArray) -> FloatArray:
        """Integers on their levels, everything within the bounds."""
        rows = np.where(self.is_option, rows, np.clip(rows, -HALF_RANGE, HALF_RANGE))
        levels = np.where(self.is_option, 0, self._levels)
        index = np.floor((rows / (2 * HALF_RANGE) + 0.5) * levels)
        index = np.clip(index, 0, np.maximum(levels - 1, 0))
        return np.where(levels > 0, self._on_level(index), rows)

    def _on_level(self, index: FloatArray) -> FloatArray:
        """Scaled numbers of integers, counted from 0."""
        levels = np.maximum(self._levels, 1)
        return np.asarray(((index + 0.5) / levels - 0.5) * 2 * HALF_RANGE)


@final
class Candidates:
    """Draws settings to be compared."""

    def __init__(self, features: Features, rng: np.random.Generator) -> None:
        self._features, self._rng = features, rng

    def first(self, max_solves: int | None, width: int) -> FloatArray:
        """Settings to solve before there is a model, shape `(count, d)`."""
        count = max(FEWEST_RANDOM_SETTINGS, self._features.size + 1)
        if max_solves is not None:
            count = min(count, int(RANDOM_SHARE * max_solves))
        return self._features.draw(max(1, count, width), self._rng)

    def around(self, rows: FloatArray, order: NDArray[np.intp]) -> FloatArray:
        """Moves from the first rows of an order, and rows anywhere."""
        parents = rows[order[:MOST_PARENTS]]
        picked = np.minimum(self._rng.geometric(0.4, MOVED_SETTINGS) - 1, len(parents) - 1)
        fresh = self._features.draw(FRESH_SETTINGS, self._rng)
        return np.vstack([self.moves(parents[picked]), fresh])

    def unsolved(
        self, rows: Iterable[FloatArray], solved: Collection[bytes], wanted: int = 1
    ) -> list[FloatArray]:
        """Those of some rows that are not solved; with others, at random, if fewer than wanted.

        Args:
            rows: Each of shape `(d,)`.
            solved: The bytes of rows.
            wanted: How many; only a space whose settings are nearly all solved has fewer.
        """
        fresh = [row for row in rows if row.tobytes() not in solved]
        if len(fresh) < wanted and np.isfinite(self._features.settings):
            known = {row.tobytes() for row in fresh}.union(solved)
            others = self._features.first_rows(len(known) + FRESH_SETTINGS)
            left = [row for row in others if row.tobytes() not in known]
            fresh += [left[k] for k in self._rng.permutation(len(left))]
        return fresh

    def moves(self, rows: FloatArray) -> FloatArray:
        """One move from each row."""
        return self._features.moves(rows, self._rng)
