"""The space of meta-parameters: named and bounded outside, one flat scaled vector inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.problem.coordinates import HALF_RANGE as HALF_RANGE
from zo_bilevel.problem.coordinates import Block as Block
from zo_bilevel.problem.coordinates import Coordinates
from zo_bilevel.problem.dependent import (
    Dependents,
    Fixed,
    Tied,
    as_dependent,
    as_tensor,
    check_names,
    without_prior,
)
from zo_bilevel.problem.far_bounds import Placements, placement_at
from zo_bilevel.problem.parameters import Choice, Integer, Log, Parameter, Real
from zo_bilevel.problem.prior import Prior
from zo_bilevel.problem.space_values import (
    by_name,
    checked,
    checked_values,
    decode_choice,
    encode_choice,
    whole_numbers,
)
from zo_bilevel.problem.tied_start import at_tied_values
from zo_bilevel.support.arguments import refuse_unknown
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

Declared: TypeAlias = Parameter | Fixed | Tied | float | int | np.ndarray[Any, Any]
"""What a space may hold under a name; plain numbers and arrays are fixed."""


@final
class Space(Coordinates):
    """Named, bounded meta-parameters and the flat scaled vector that methods work on.

    Fixed and tied parameters are among the named values, in their order, but not in the vector:
    `parameters` are the free ones, `names` all of them.

    Args:
        parameters: A mapping of names to parameters, for names that are no identifiers.
        **named: Parameters by name: `Real`, `Log`, `Integer`, `Choice`, `Tied`, `Fixed`; a plain
            number or array is fixed.

    Raises:
        InputError: If no parameter is free, a name is given twice, or a value is no parameter.

    Example:
        >>> space = Space(nu=Log(1e-4, 10.0), order=Integer(1, 4), half=Tied("nu / 2"), c=0.3)
        >>> space.size
        2
        >>> space.decode(space.encode({"nu": 10.0, "order": 3}))
        {'nu': 10.0, 'order': 3, 'half': 5.0, 'c': 0.3}
    """

    def __init__(
        self, parameters: Mapping[str, Declared] | None = None, /, **named: Declared
    ) -> None:
        merged = dict(parameters or {})
        for name, given in named.items():
            if name in merged:
                raise InputError(f"parameter {name!r} is given twice")
            merged[name] = given
        self.declared: dict[str, Parameter | Fixed | Tied] = {
            name: as_dependent(given) for name, given in merged.items()
        }
        check_names(self.declared)
        free = {n: p for n, p in self.declared.items() if not isinstance(p, Fixed | Tied)}
        if not free:
            got = "only fixed and tied ones" if merged else "none"
            raise InputError(f"space must have at least one parameter, got {got}")
        super().__init__(free)
        # what is known before the data changes no solve
        self.identity: Any = {n: without_prior(p) for n, p in self.declared.items()}
        self.is_placed = False
        self._dependents = Dependents(self.declared)
        self.names: tuple[str, ...] = self._dependents.names
        self.tied: tuple[str, ...] = tuple(self._dependents.ties)
        middle = self.decode(np.zeros(self.size))  # refuses formulas that cannot be computed
        self.shapes: dict[str, tuple[int, ...]] = {
            name: free[name].shape if name in free else getattr(value, "shape", ())
            for name, value in middle.items()
        }

    @classmethod
    def from_nevergrad(cls, parametrization: Any) -> Space:  # noqa: ANN401 - optional package
        """The space of a Nevergrad parametrization; see `zo_bilevel.bridges.nevergrad_space`.

        Args:
            parametrization: Of Nevergrad, every parameter with bounds.
        """
        from zo_bilevel.bridges.nevergrad_space import space_of

        return space_of(parametrization)

    @classmethod
    def from_lmfit(cls, parameters: Any) -> Space:  # noqa: ANN401 - optional package
        """The space of lmfit's `Parameters`, whose `valuesdict()` is the start.

        Those that do not vary are fixed, those with an `expr` tied.

        Args:
            parameters: Of lmfit.

        Raises:
            InputError: If an `expr` is no formula that `Tied` knows.
        """
        from zo_bilevel.bridges.lmfit_space import space_of

        return space_of(parameters)

    def placed_at(self, phi: Mapping[str, Any] | None) -> Space:
        """The same space, where numbers with far bounds or none are searched around a start.

        Args:
            phi: The start, by name; `None` or what it leaves out changes nothing.

        Raises:
            InputError: If a value is none, or outside its bounds.
        """
        given = by_name(phi)
        reals = {n: p for n, p in self.parameters.items() if isinstance(p, Real) and n in given}
        starts = {n: checked_values(n, p, given[n]) for n, p in reals.items()}
        found = {n: placement_at(reals[n], starts[n]) for n in reals}
        placements = {n: p for n, p in found.items() if p is not None}
        return self.placed(placements) if placements else self

    def placed(self, placements: Placements) -> Space:
        """The same space with numbers searched around given places.

        Args:
            placements: By name.
        """
        space = Space(self.declared)
        Coordinates.__init__(space, self.parameters, self.placements | dict(placements))
        space.is_placed = bool(placements)
        return space

    def fixed(self, values: Mapping[str, Any]) -> Space:
        """The same space with some parameters fixed or tied.

        Args:
            values: By name a value within the bounds, or a formula of other parameters as text
                (of a choice: an option).

        Raises:
            InputError: If a name is unknown, a value does not fit, or no parameter is left free.

        Example:
            >>> space = Space(a=Real(0, 1), b=Real(0, 1), c=Real(0, 9))
            >>> space.fixed({"b": 0.25, "c": "2 * a"}).decode(np.zeros(1))
            {'a': 0.5, 'b': 0.25, 'c': 1.0}
        """
        declared = dict(self.declared)
        refuse_unknown("fixed", "parameter", values, self.names)
        for name, value in values.items():
            parameter = self.parameters.get(name)
            if isinstance(value, str) and not isinstance(parameter, Choice):
                declared[name] = Tied(value)
            else:
                declared[name] = Fixed(
                    value if parameter is None else checked(name, parameter, value)
                )
        return Space(declared)

    @property
    def has_correlation(self) -> bool:
        """Whether any parameter is a field with a correlation length."""
        return any(getattr(p, "correlation_length", None) for p in self.parameters.values())

    @property
    def has_prior(self) -> bool:
        """Whether anything is known of a free parameter before the data."""
        return any(getattr(p, "prior", None) is not None for p in self.parameters.values())

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
            Numbers as `float`, `int` or the option; arrays as float64 (int64 for integers);
            fixed and tied values among them.
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
        return self._dependents.completed(phi)

    def encode(self, phi: Mapping[str, Any] | None = None) -> FloatArray:
        """Turn named values into the flat scaled vector; missing names take the middle.

        Args:
            phi: Values by name, within the bounds; fixed and tied ones may be left out, or tied
                ones given in the place of those that they follow. For anything `decode` ever
                returned, `decode(encode(phi))` is equal to the last bit.

        Returns:
            Shape `(size,)`.

        Raises:
            InputError: If a name is unknown, a value is outside its bounds, of a wrong shape, or
                other than that of a fixed or tied parameter.
        """
        phi = by_name(phi)
        refuse_unknown("initial", "parameter", phi, self.names)
        x = np.zeros(self.size)
        if not phi and not self._has_integer:
            return self.middle.copy()
        wanted = self.steps(self.middle)
        for block in self.blocks:
            if block.name not in phi:
                continue
            if isinstance(block.parameter, Choice):
                x[block.section] = encode_choice(block.name, block.parameter, phi[block.name])
            else:
                wanted[block.section] = checked_values(block.name, block.parameter, phi[block.name])
        self.check_reach(wanted)
        found = at_tied_values(self, self.decode, self.tied, phi, self._invert(wanted, x))
        self._dependents.check(phi, lambda: self.decode(found))
        return found

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
        raw = self.raw_torch(x)
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
        return self._dependents.completed(phi, as_tensor)

    def named_gradient(self, x: FloatArray, gradient: FloatArray) -> dict[str, Any]:
        """Turn a gradient in the scaled vector into named arrays in the user's units.

        Args:
            x: Where the gradient was taken, shape `(size,)`.
            gradient: Shape `(size,)`, per scaled unit.

        Returns:
            Per free name an array of the parameter's shape (with a last axis of scores for
            choices).
        """
        scaled = gradient / self.rates(x)
        named = {}
        for block in self.blocks:
            shape = block.parameter.shape
            if isinstance(block.parameter, Choice):
                shape = (*shape, len(block.parameter.options))
            named[block.name] = scaled[block.section].reshape(shape)
        return named

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.declared.items())
        return f"Space({inner})"
