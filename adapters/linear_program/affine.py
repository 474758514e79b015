"""Vectors that depend on named parameters in an affine way: `base + sum(map @ value)`."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import scipy.sparse

from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arguments import refuse_unknown
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError


@final
class AffineVector:
    """`base + sum over parameters of map @ value`.

    Args:
        what: What the vector is, for messages ("cost").
        base: Shape `(length,)`.
        maps: By parameter name: a matrix of shape `(length, size of the parameter)`, or a list of
            positions, one for each value, at which the values are added.

    Raises:
        InputError: If a shape does not fit or a number is not finite.

    Example:
        >>> AffineVector("cost", np.zeros(3), {"price": [0, 2]}).at({"price": np.array([5.0, 7.0])})
        array([5., 0., 7.])
    """

    def __init__(self, what: str, base: FloatArray, maps: Mapping[str, Any]) -> None:
        self.what = what
        self.base = base
        self.maps = {name: self._matrix(name, given) for name, given in maps.items()}

    def at(self, phi: Mapping[str, Any]) -> FloatArray:
        """The vector at these values, shape `(length,)`.

        Raises:
            InputError: If a value is missing, not finite, or of another size than its map.
        """
        total = self.base.copy()
        for name, matrix in self.maps.items():
            if name not in phi:
                raise InputError(f"parameter {name!r} of {self.what}_parameters is missing")
            value = np.ravel(np.asarray(phi[name], dtype=np.float64))
            if value.size != matrix.shape[1] or not np.isfinite(value).all():
                raise InputError(
                    f"parameter {name!r} of {self.what}_parameters must be {matrix.shape[1]} "
                    f"finite numbers, got {phi[name]!r}"
                )
            total += matrix @ value
        return total

    def check(self, owner: str, space: Space) -> None:
        """Refuse a space whose parameters do not fit the maps."""
        refuse_unknown(owner, f"parameter in {self.what}_parameters:", self.maps, space.names)
        for name, matrix in self.maps.items():
            if isinstance(space.parameters.get(name), Choice):
                raise InputError(f"{owner}: parameter {name!r} is a Choice, not a number")
            size = int(np.prod(space.shapes[name]))
            if size != matrix.shape[1]:
                raise InputError(
                    f"{owner}: parameter {name!r} has {size} values, but its map in "
                    f"{self.what}_parameters takes {matrix.shape[1]}"
                )

    def _matrix(self, name: str, given: Any) -> Any:  # noqa: ANN401 - a sparse matrix
        where = f"{self.what}_parameters[{name!r}]"
        length = self.base.size
        if scipy.sparse.issparse(given):
            matrix = scipy.sparse.csr_array(given, dtype=np.float64)
        else:
            array = np.asarray(given)
            if array.ndim == 1 and array.dtype.kind in "iu":
                if array.size == 0 or array.min() < 0 or array.max() >= length:
                    raise InputError(f"{where} must hold positions from 0 to {length - 1}")
                places = (array, np.arange(array.size))
                shape = (length, array.size)
                matrix = scipy.sparse.csr_array((np.ones(array.size), places), shape=shape)
            elif array.ndim == 2 and array.dtype.kind in "fiub":
                matrix = scipy.sparse.csr_array(array.astype(np.float64))
            else:
                raise InputError(
                    f"{where} must be a matrix of shape ({length}, size) or a list of positions, "
                    f"got shape {array.shape} of dtype {array.dtype}"
                )
        if matrix.shape[0] != length or not np.isfinite(matrix.data).all():
            raise InputError(
                f"{where} must be finite and have {length} rows, got shape {matrix.shape}"
            )
        return matrix
