"""The inner solution as one flat vector, and back to the structure that the solver returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.arrays import FloatArray


@final
@dataclass(frozen=True, slots=True)
class ThetaLayout:
    """How a flat inner solution maps to what the inner solver returned.

    Args:
        names: Keys of a dict in order, or `()` for a bare number, array or tensor.
        shapes: Shape of each part.
        dtype: Coarsest floating type seen ("float64", "float32", ...): it bounds the accuracy
            of differences, and so the automatic radius.
        is_torch: Whether the solver returned torch tensors.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str = "float64"
    is_torch: bool = False

    def pack(self, theta: Any) -> Any:  # noqa: ANN401 - numpy or torch, the user's structure
        """Rebuild the user's structure from the flat vector.

        Args:
            theta: Shape `(m,)`, numpy or torch.

        Returns:
            A float for one bare number, an array, or a dict of arrays (tensors stay tensors).
        """
        parts, start = [], 0
        for shape in self.shapes:
            count = int(np.prod(shape))
            parts.append(theta[start : start + count].reshape(shape))
            start += count
        if self.names:
            return dict(zip(self.names, parts, strict=True))
        bare = parts[0]
        return float(bare) if not self.shapes[0] and isinstance(bare, np.ndarray) else bare

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return int(sum(np.prod(shape) for shape in self.shapes))

    def describe(self) -> str:
        """The shapes in words, for messages."""
        if not self.names:
            return f"shape {self.shapes[0]}"
        pairs = zip(self.names, self.shapes, strict=True)
        return "shapes {" + ", ".join(f"{name}: {shape}" for name, shape in pairs) + "}"


def flatten_theta(theta: Any) -> tuple[FloatArray, ThetaLayout]:  # noqa: ANN401 - user's value
    """Flatten an inner solution to one float64 vector on the host.

    Args:
        theta: A number, array, tensor, or dict of them.

    Returns:
        The flat vector of shape `(m,)` and the layout that undoes it.

    Raises:
        TypeError: If a part is no number or array of real numbers, or there is no part at all.

    Example:
        >>> flat, layout = flatten_theta({"u": np.zeros((2, 3)), "flux": 1.0})
        >>> flat.shape, layout.shapes
        ((7,), ((2, 3), ()))
    """
    if type(theta) is np.ndarray and theta.dtype == np.float64 and theta.size:
        return np.ascontiguousarray(theta.ravel()), ThetaLayout((), (theta.shape,))
    if isinstance(theta, Mapping):
        if not theta:
            raise TypeError("the inner solution is an empty dict")
        names = tuple(str(name) for name in theta)
        parts = [_to_numpy(part) for part in theta.values()]
        is_torch = any(hasattr(part, "detach") for part in theta.values())
    else:
        names, parts, is_torch = (), [_to_numpy(theta)], hasattr(theta, "detach")
    shapes = tuple(part.shape for part in parts)
    floats = [part.dtype for part in parts if part.dtype.kind == "f"]
    coarsest = max(floats, key=lambda d: float(np.finfo(d).eps)) if floats else np.dtype("f8")
    flat = np.concatenate([part.ravel() for part in parts]) if names else parts[0].ravel()
    if flat.size == 0:
        raise TypeError("the inner solution is empty")
    layout = ThetaLayout(names, shapes, str(coarsest), is_torch)
    return np.ascontiguousarray(flat, dtype=np.float64), layout


def _to_numpy(part: Any) -> NDArray[Any]:  # noqa: ANN401 - the user's value
    if hasattr(part, "detach"):
        part = part.detach().cpu()
        if str(part.dtype) == "torch.bfloat16":
            part = part.float()
        part = part.numpy()
    array = np.asarray(part)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            "the inner solution must be a number, array, tensor, or dict of them, "
            f"got {type(part).__name__} of dtype {array.dtype}"
        )
    return array
