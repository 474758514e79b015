"""The space of meta-parameters: named and bounded outside, one flat scaled vector inside.

Every coordinate is scaled so that its bounds are at -3 and +3. One unit is then a sixth of the
range, the step size that Nevergrad gives a bounded variable by default, so that every method,
ours and the baselines, starts with the same notion of a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.parameters import Choice, Integer, Log, Parameter, Real
from zo_bilevel.problem.prior import Prior
from zo_bilevel.problem.space_values import (
    checked_values,
    decode_choice,
    encode_choice,
    whole_numbers,
)
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, unknown_name_message

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


def _block_size(parameter: Parameter) -> int:
    count = math.prod(parameter.shape)
    return count * len(parameter.options) if isinstance(parameter, Choice) else count


@final
class Space:
    """Named, bounded meta-parameters and the flat scaled vector that methods work on.

    Args:
        parameters: A mapping of names to parameters, for names that are no identifiers.
        **named: Parameters by name.

    Raises:
        InputError: If there is no parameter, a name is given twice, or a value is no parameter.

    Example:
        >>> space = Space(nu=Log(1e-4, 10.0), order=Integer(1, 4))
        >>> space.size
        2
        >>> space.decode(space.encode({"nu": 10.0, "order": 3}))
        {'nu': 10.0, 'order': 3}
    """

    def __init__(
        self, parameters: Mapping[str, Parameter] | None = None, /, **named: Parameter
    ) -> None:
        merged = dict(parameters or {})
        for name, parameter in named.items():
            if name in merged:
                raise InputError(f"parameter {name!r} is given twice")
            merged[name] = parameter
        if not merged:
            raise InputError("space must have at least one parameter, got none")
        self.parameters: dict[str, Parameter] = merged
        self.blocks = _layout(merged)
        self.size: int = self.blocks[-1].stop
        self.names: tuple[str, ...] = tuple(merged)
        self.lower: FloatArray = np.full(self.size, -HALF_RANGE)
        self.upper: FloatArray = np.full(self.size, HALF_RANGE)
        self._fill_tables()

    @classmethod
    def from_nevergrad(cls, parametrization: Any) -> Space:  # noqa: ANN401 - optional package
        """The space of a Nevergrad parametrization; see `zo_bilevel.bridges.nevergrad_space`.

        Args:
            parametrization: Of Nevergrad, every parameter with bounds.
        """
        from zo_bilevel.bridges.nevergrad_space import space_of

        return space_of(parametrization)

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
        # an integer owns an interval of its own, so that all are equally likely
        self._from, self._to = self._low.copy(), self._high + self.is_integer
        self._from[self.is_log] = np.log(self._low[self.is_log])
        self._to[self.is_log] = np.log(self._high[self.is_log])
        self._has_log, self._has_integer = bool(self.is_log.any()), bool(self.is_integer.any())
        self._has_choice = bool(self.is_choice.any())
        self.discrete: NDArray[np.bool_] = self.is_integer | self.is_choice
        self._span = self._to - self._from
        self.unit: FloatArray = self._span / (2 * HALF_RANGE)

    @property
    def has_correlation(self) -> bool:
        """Whether any parameter is a field with a correlation length."""
        return any(getattr(p, "correlation_length", None) for p in self.parameters.values())

    @property
    def prior(self) -> Prior:
        """The prior covariance of the scaled vector: smooth fields, the rest independent."""
        fields = [
            (b.section, b.parameter.shape, b.parameter.correlation_length)
            for b in self.blocks
            if isinstance(b.parameter, Real) and b.parameter.correlation_length is not None
        ]
        return Prior(self.size, fields)

    def decode(self, x: FloatArray) -> dict[str, Any]:
        """Turn a flat scaled vector into named values; bounds hold whatever `x` is.

        Args:
            x: Shape `(size,)`; coordinates beyond the bounds are put on them.

        Returns:
            Numbers as `float`, `int` or the option; arrays as float64 (int64 for integers).
        """
        values = self.steps(x)
        phi: dict[str, Any] = {}
        for block in self.blocks:
            parameter = block.parameter
            if isinstance(parameter, Choice):
                phi[block.name] = decode_choice(parameter, x[block.section])
            elif isinstance(parameter, Integer):
                phi[block.name] = whole_numbers(parameter, values[block.section])
            elif parameter.shape:
                phi[block.name] = values[block.section].reshape(parameter.shape)
            else:
                phi[block.name] = values.item(block.start)
        return phi

    def values(self, x: FloatArray) -> FloatArray:
        """The same as `decode`, but as one flat vector in the user's units.

        Args:
            x: Shape `(size,)` or `(batch, size)`.

        Returns:
            The same shape; integers are rounded, scores of choices are left scaled.
        """
        return self.steps(x) + self._first if self._has_integer else self.steps(x)

    def steps(self, x: FloatArray) -> FloatArray:
        """The same as `values`, but integers as steps above their lower bound, which are exact.

        Args:
            x: Shape `(size,)` or `(batch, size)`.
        """
        share = np.minimum(np.maximum((x + HALF_RANGE) / (2 * HALF_RANGE), 0.0), 1.0)
        # every operation is monotone, so that `_invert` can bisect to the last bit
        values: FloatArray = self._span * share
        if self._has_log:
            half = np.exp(0.5 * values * self.is_log)  # twice the half cannot overflow
            values = np.where(self.is_log, self._low * half * half, self._from + values)
        else:
            values += self._from
        if self._has_integer:
            values = np.where(self.is_integer, np.floor(values), values)
        values = np.where(share >= 1.0, self._high, values)
        values = np.minimum(np.maximum(values, self._low), self._high)
        return np.where(self.is_choice, x, values) if self._has_choice else values

    def encode(self, phi: Mapping[str, Any] | None = None) -> FloatArray:
        """Turn named values into the flat scaled vector; missing names take the middle.

        Args:
            phi: Values by name, within the bounds. For anything `decode` ever returned,
                `decode(encode(phi))` is equal to the last bit.

        Returns:
            Shape `(size,)`.

        Raises:
            InputError: If a name is unknown, a value is outside its bounds or of a wrong shape.
        """
        phi = {} if phi is None else phi
        if not isinstance(phi, Mapping):
            raise InputError(f"initial must be a dict of values by name, got {phi!r}")
        for name in phi:
            if name not in self.parameters:
                raise InputError("initial: " + unknown_name_message("parameter", name, self.names))
        x = np.zeros(self.size)
        if not phi and not self._has_integer:
            return x
        wanted = self.steps(x)
        for block in self.blocks:
            if block.name not in phi:
                continue
            if isinstance(block.parameter, Choice):
                x[block.section] = encode_choice(block.name, block.parameter, phi[block.name])
            else:
                wanted[block.section] = checked_values(block.name, block.parameter, phi[block.name])
        return self._invert(wanted, x)

    def _invert(self, wanted: FloatArray, x: FloatArray) -> FloatArray:
        """The smallest x whose decoded value is not below the one wanted, to the last bit."""
        inner = np.where(self.is_log, np.log(np.maximum(wanted, 1e-320)), wanted)
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

    def decode_torch(self, x: Any, at: FloatArray) -> dict[str, Any]:  # noqa: ANN401 - a tensor
        """The same as `decode` for a float64 torch vector, differentiable in `x`.

        Args:
            x: Tensor of shape `(size,)`. Integers and choices get no derivative.
            at: The same numbers in numpy, for integers and choices.

        Returns:
            Tensors by name; choices as their option.
        """
        import torch

        plain = self.decode(at) if self.discrete.any() else {}
        share = (x + HALF_RANGE) / (2 * HALF_RANGE)
        raw = torch.as_tensor(self._from) + torch.as_tensor(self._span) * share
        phi: dict[str, Any] = {}
        for block in self.blocks:
            parameter = block.parameter
            if isinstance(parameter, Choice):
                phi[block.name] = plain[block.name]
            elif isinstance(parameter, Integer):
                phi[block.name] = torch.as_tensor(plain[block.name], dtype=torch.float64)
            else:
                value = raw[block.section].reshape(parameter.shape)
                phi[block.name] = torch.exp(value) if isinstance(parameter, Log) else value
        return phi

    def named_gradient(self, x: FloatArray, gradient: FloatArray) -> dict[str, Any]:
        """Turn a gradient in the scaled vector into named arrays in the user's units.

        Args:
            x: Where the gradient was taken, shape `(size,)`.
            gradient: Shape `(size,)`, per scaled unit.

        Returns:
            Per name an array of the parameter's shape (with a last axis of scores for choices).
        """
        scaled = gradient / self.rates(x)
        named = {}
        for block in self.blocks:
            shape = block.parameter.shape
            if isinstance(block.parameter, Choice):
                shape = (*shape, len(block.parameter.options))
            named[block.name] = scaled[block.section].reshape(shape)
        return named

    def rates(self, x: FloatArray) -> FloatArray:
        """Derivative of the values in the scaled vector, shape `(size,)`; 1 for scores of choices.

        Args:
            x: Where, shape `(size,)`.
        """
        slope = np.where(self.is_choice, 1.0, self.unit)
        return np.where(self.is_log, slope * self.values(x), slope)

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"Space({inner})"


def _layout(parameters: Mapping[str, Parameter]) -> list[Block]:
    blocks, start = [], 0
    for name, parameter in parameters.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"parameter names must be non-empty strings, got {name!r}")
        if not isinstance(parameter, Real | Log | Integer | Choice):
            raise InputError(
                f"parameter {name!r} must be Real, Log, Integer or Choice, got {parameter!r}"
            )
        array = name.rpartition("[")[0] if name.endswith("]") else ""
        if getattr(parameters.get(array), "shape", ()):
            raise InputError(
                f"parameter {name!r} is named as one number of the array {array!r} is where arrays "
                "are written out"
            )
        stop = start + _block_size(parameter)
        blocks.append(Block(name, parameter, start, stop))
        start = stop
    return blocks
