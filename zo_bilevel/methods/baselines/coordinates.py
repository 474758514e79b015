"""The coordinates a baseline searches in: the scaled box, or white coordinates of the prior."""

from typing import Literal, TypeAlias, final, get_args

import numpy as np

from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

CoordinatesName: TypeAlias = Literal["scaled", "prior"]


def check_coordinates(name: str) -> CoordinatesName:
    """Accept "scaled" or "prior"; `InputError` if it is neither."""
    for known in get_args(CoordinatesName):
        if name == known:
            return known  # type: ignore[no-any-return] # get_args loses the literal type
    raise InputError(f"coordinates must be 'scaled' or 'prior', got {name!r}")


@final
class Coordinates:
    """Where a baseline searches; one unit is the initial step of every method.

    - "scaled": `x` itself, in the box of the space;
    - "prior": `x = clip(start + S z)`, `S` a square root of the prior covariance, `z` without
      bounds and 0 at the start; the coordinates of a field are the amplitudes of its modes, the
      smoothest first. Without a correlated field this is "scaled".

    Example:
        >>> from zo_bilevel import Real
        >>> space = Space(a=Real(-1, 1))
        >>> Coordinates(space, np.zeros(1), "scaled").to_x(np.array([5.0]))
        array([3.])
    """

    def __init__(self, space: Space, start: FloatArray, name: CoordinatesName) -> None:
        self._space, self._start = space, start
        self.is_white = name == "prior" and space.has_correlation
        self._prior = space.prior
        self.size = space.size
        self.start: FloatArray = np.zeros(self.size) if self.is_white else start.copy()
        self.lower: FloatArray = np.full(self.size, -np.inf) if self.is_white else space.lower
        self.upper: FloatArray = np.full(self.size, np.inf) if self.is_white else space.upper

    def to_x(self, z: FloatArray) -> FloatArray:
        """The scaled point of these coordinates: a new array of shape `(N,)`, within the bounds.

        Args:
            z: Shape `(N,)`. A coordinate of `x` that comes out NaN, as one library's may, stays
                at its start.
        """
        z = np.asarray(z, dtype=np.float64).reshape(self.size)
        x = self._start + self._prior.from_modes(z) if self.is_white else z
        x = np.where(np.isnan(x), self._start, x)
        return np.asarray(np.clip(x, self._space.lower, self._space.upper))

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """A random place to start anew, `(N,)`: uniform in the box, or a draw from the prior."""
        if self.is_white:
            return rng.standard_normal(self.size)
        return rng.uniform(self.lower, self.upper)
