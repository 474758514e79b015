"""The flat scaled vector of the free parameters, to numbers in the user's units and back.

Every coordinate is scaled so that its bounds are at -3 and +3. One unit is then a sixth of the
range, the step size that Nevergrad gives a bounded variable by default, so that every method,
ours and the baselines, starts with the same notion of a step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.far_bounds import (
    CORE_SCALES,
    END_COORDINATE,
    Placement,
    Placements,
    default_placement,
    grown,
    grown_torch,
    growth_rate,
    shrunk,
)
from zo_bilevel.problem.parameters import Choice, Integer, Log, Parameter
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

HALF_RANGE = 3.0
"""Scaled coordinates lie in [-HALF_RANGE, HALF_RANGE]."""
WIDEST_EXACT = 2.0**48
"""Of so many integers each has scaled coordinates of its own, all rounding included."""


@final
@dataclass(frozen=True, slots=True)
class Block:
    """Where one named parameter lives in the flat vector."""

    name: str
    parameter: Parameter
    start: int
    stop: int

    @property
    def section(self) -> slice:
        """Its place in the vector."""
        return slice(self.start, self.stop)


class Coordinates:
    """The flat vector of some parameters, choices as scores of their options.

    Args:
        parameters: By name, at least one.
        placements: Of those that are searched around a start; default what they say themselves.

    Attributes:
        lowest: Bounds that reals and logs were given, in the user's units; infinite where none is.
        highest: Likewise.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], placements: Placements | None = None
    ) -> None:
        self.parameters: dict[str, Parameter] = dict(parameters)
        found = {n: default_placement(p) for n, p in parameters.items()} | dict(placements or {})
        self.placements: dict[str, Placement] = {n: p for n, p in found.items() if p is not None}
        self.blocks = _blocks(parameters)
        self.size: int = self.blocks[-1].stop
        self.lower: FloatArray = np.full(self.size, -HALF_RANGE)
        self.upper: FloatArray = np.full(self.size, HALF_RANGE)
        self._fill_tables()

    def _fill_tables(self) -> None:
        self._first = np.zeros(self.size)
        self._low = np.zeros(self.size)
        self._high = np.ones(self.size)
        self.is_log = np.zeros(self.size, dtype=bool)
        self.is_integer = np.zeros(self.size, dtype=bool)
        self.is_choice = np.zeros(self.size, dtype=bool)
        for block in self.blocks:
            parameter, section = block.parameter, block.section
            if isinstance(parameter, Choice):
                self.is_choice[section] = True
                continue
            if isinstance(parameter, Integer):  # counted from its lower bound: exact at any size
                self.is_integer[section] = True
                self._first[section] = parameter.lower
                self._low[section], self._high[section] = 0, parameter.upper - parameter.lower
                continue
            self._low[section], self._high[section] = parameter.lower, parameter.upper
            self.is_log[section] = isinstance(parameter, Log)
        self.lowest, self.highest = self._low.copy(), self._high.copy()
        # an integer owns an interval of its own, so that all are equally likely
        self._from, self._to = self._low.copy(), self._high + self.is_integer
        self._from[self.is_log] = np.log(self._low[self.is_log])
        self._to[self.is_log] = np.log(self._high[self.is_log])
        self._has_log, self._has_integer = bool(self.is_log.any()), bool(self.is_integer.any())
        self._has_choice = bool(self.is_choice.any())
        self._place()
        self.discrete: NDArray[np.bool_] = self.is_integer | self.is_choice
        self._span = self._to - self._from
        self.unit: FloatArray = self._span / (2 * HALF_RANGE)
        center = shrunk(np.zeros(self.size)) - self._from
        self.middle: FloatArray = np.where(
            self.is_far, center / self._span * (2 * HALF_RANGE) - HALF_RANGE, 0.0
        )

    @property
    def likely(self) -> tuple[FloatArray, FloatArray]:
        """Box that starts are drawn from: all of it, or where steps are even around a start."""
        reach = np.where(self.is_far, 1.0 / self.unit, 2 * HALF_RANGE)
        low, high = self.middle - reach, self.middle + reach
        return np.maximum(low, self.lower), np.minimum(high, self.upper)

    def _place(self) -> None:
        """Coordinates of what is searched around a start; see `far_bounds`."""
        self.is_far = np.zeros(self.size, dtype=bool)
        self._center, self._core = np.zeros(self.size), np.ones(self.size)
        for block in self.blocks:
            if block.name in self.placements:
                placement = self.placements[block.name]
                self.is_far[block.section] = True
                self._center[block.section] = placement.center
                self._core[block.section] = CORE_SCALES * placement.scale
        self._has_far = bool(self.is_far.any())
        if not self._has_far:
            return
        center, core = self._center[self.is_far], self._core[self.is_far]
        low, high = self._low[self.is_far], self._high[self.is_far]
        reach = np.maximum(core, CORE_SCALES) * grown(np.full(core.size, END_COORDINATE))
        low = np.where(np.isfinite(low), low, center - reach)
        high = np.where(np.isfinite(high), high, center + reach)
        self._low[self.is_far], self._high[self.is_far] = low, high
        self._from[self.is_far] = shrunk((low - center) / core)
        self._to[self.is_far] = shrunk((high - center) / core)

    def values(self, x: FloatArray) -> FloatArray:
        """The same as `decode`, but as one flat vector in the user's units.

        Args:
            x: Shape `(size,)` or `(batch, size)`.

        Returns:
            The same shape; integers are rounded, scores of choices are left scaled.
        """
        return self.steps(x) + self._first if self._has_integer else self.steps(x)

    def steps(self, x: FloatArray) -> FloatArray:
        """The same as `values`, but integers as steps above their lower bound, which are exact."""
        share = np.minimum(np.maximum((x + HALF_RANGE) / (2 * HALF_RANGE), 0.0), 1.0)
        # every operation is monotone, so that `_invert` can bisect to the last bit
        values: FloatArray = self._span * share
        if self._has_log:
            half = np.exp(0.5 * values * self.is_log)  # twice the half cannot overflow
            values = np.where(self.is_log, self._low * half * half, self._from + values)
        else:
            values += self._from
        if self._has_far:
            values = np.where(self.is_far, self._center + self._core * grown(values), values)
            values = np.where(self.is_far & (share <= 0.0), self._low, values)
        if self._has_integer:
            values = np.where(self.is_integer, np.floor(values), values)
        values = np.where(share >= 1.0, self._high, values)
        values = np.minimum(np.maximum(values, self._low), self._high)
        return np.where(self.is_choice, x, values) if self._has_choice else values

    def straight(self, x: FloatArray, way: FloatArray) -> FloatArray:
        """Where a way leads that is straight in the values, however far coordinates bend them.

        Args:
            x: Shape `(size,)`.
            way: Shape `(size,)`, as long as coordinates have it at `x`.
        """
        if not self._has_far:
            return x + way
        unit = self._span / (2 * HALF_RANGE)
        before = self._from + unit * (x + HALF_RANGE)
        after = shrunk(grown(before) + growth_rate(before) * unit * way)
        return np.where(self.is_far, x + (after - before) / unit, x + way)

    def raw_torch(self, x: Any) -> Any:  # noqa: ANN401 - tensors
        """Values of reals and logarithms of logs for a float64 torch vector, shape `(size,)`."""
        import torch

        share = (x + HALF_RANGE) / (2 * HALF_RANGE)
        raw = torch.as_tensor(self._from) + torch.as_tensor(self._span) * share
        if not self._has_far:
            return raw
        far = torch.as_tensor(self._center) + torch.as_tensor(self._core) * grown_torch(raw)
        return torch.where(torch.as_tensor(self.is_far), far, raw)

    def check_reach(self, wanted: FloatArray) -> None:
        """Refuse values further away than is searched, naming the parameter and how far that is."""
        outside = self.is_far & ((wanted < self._low) | (wanted > self._high))
        for block in self.blocks if outside.any() else ():
            places = np.flatnonzero(outside[block.section]) + block.start
            for place in places[:1]:
                low, high = self._low[place], self._high[place]
                raise InputError(
                    f"{block.name} must lie in [{low:g}, {high:g}], which its scale "
                    f"{self._core[place] / CORE_SCALES:g} reaches, got {wanted[place]:g}"
                )

    def _invert(self, wanted: FloatArray, x: FloatArray) -> FloatArray:
        """The smallest x whose decoded value is not below the one wanted, to the last bit."""
        inner = np.where(self.is_log, np.log(np.maximum(wanted, 1e-320)), wanted)
        if self._has_far:
            inner = np.where(self.is_far, shrunk((wanted - self._center) / self._core), inner)
        share = np.clip((inner + 0.5 * self.is_integer - self._from) / self._span, 0.0, 1.0)
        guess = share * (2 * HALF_RANGE) - HALF_RANGE
        exact = self.is_choice | (self.is_integer & (self._span < WIDEST_EXACT))
        below, above = np.maximum(guess - 1e-9, self.lower), np.minimum(guess + 1e-9, self.upper)
        for _ in range(64):
            middle = 0.5 * (below + above)
            reached = self.steps(middle) >= wanted
            closer = np.where(reached, middle, above), np.where(reached, below, middle)
            if np.array_equal(closer[0], above) and np.array_equal(closer[1], below):
                break
            above, below = closer
        at_bottom = self.steps(self.lower) == wanted
        found = np.where(at_bottom, self.lower, above)
        return np.where(self.is_choice, x, np.where(exact, guess, found))

    def rates(self, x: FloatArray) -> FloatArray:
        """Derivative of the values in the scaled vector, `(size,)`; 1 for scores of choices."""
        slope = np.where(self.is_choice, 1.0, self.unit)
        if self._has_far:
            inner = self._from + self.unit * (x + HALF_RANGE)
            slope = np.where(self.is_far, slope * self._core * growth_rate(inner), slope)
        return np.where(self.is_log, slope * self.values(x), slope)


def _blocks(parameters: Mapping[str, Parameter]) -> list[Block]:
    blocks, start = [], 0
    for name, parameter in parameters.items():
        count = math.prod(parameter.shape)
        if isinstance(parameter, Choice):
            count *= len(parameter.options)
        blocks.append(Block(name, parameter, start, start + count))
        start += count
    return blocks
