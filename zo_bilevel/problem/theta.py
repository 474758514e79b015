"""The inner solution as one flat vector, and back to the structure that the solver returned."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.arrays import FloatArray

SHOWN_LABELS = 6
REARRANGED = "rearranged: "
"""How the text of 0, 1, ... in another order begins; in order they are a count, without a text."""
WRONG_TYPE = "the inner solution must be a number, array, tensor, or dict of them"
"""How the refusal of an answer begins that no other point would make better."""


UNMEASURED_VALUE = 5e-324
"""Stands for NaN where a target has no value, kept in stores and told from answers that are there:
the smallest number there is, which `flatten_theta` reads as 0. `ThetaLayout.pack` makes it NaN."""


def is_labelled(part: Any) -> bool:  # noqa: ANN401 - the user's value
    """Whether a part of an inner solution is a table or series of pandas, or one of xarray's."""
    pandas, xarray = sys.modules.get("pandas"), sys.modules.get("xarray")
    return (pandas is not None and isinstance(part, pandas.DataFrame | pandas.Series)) or (
        xarray is not None and isinstance(part, xarray.DataArray)
    )


def axis_labels(part: Any) -> tuple[str, ...]:  # noqa: ANN401 - the user's value
    """One text an axis: its name and labels, or nothing where it is merely counted from 0.

    Example:
        >>> import pandas
        >>> axis_labels(pandas.DataFrame([[1.0, 2.0]], columns=["u", "v"]))
        ('', 'u, v')
    """
    if not is_labelled(part):
        return ()
    if hasattr(part, "dims"):  # xarray
        named = [(f"{dim}: ", part.coords.get(dim)) for dim in part.dims]
        return tuple(name + ("" if c is None else _text(c.to_index())) for name, c in named)
    return tuple(_text(axis) for axis in part.axes)


def _text(index: Any) -> str:  # noqa: ANN401 - an index of pandas
    """The labels, or the first and last of many and a hash of all."""
    values, word = np.asarray(index), ""
    if values.dtype.kind in "iuf":
        values = values.astype(np.float64)
        counted = np.arange(len(values))
        if np.array_equal(values, counted):
            return ""
        data = values.tobytes()
        word = REARRANGED if np.array_equal(np.sort(values), counted) else ""
    else:
        data = "\0".join(map(str, values)).encode(errors="backslashreplace")
    shown = [str(label) for label in values[:SHOWN_LABELS].tolist()]
    if len(values) <= SHOWN_LABELS:
        return word + ", ".join(shown)
    return f"{word}{', '.join(shown)}, ... #{hashlib.blake2b(data, digest_size=6).hexdigest()}"


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
        labels: For each part one text an axis, from `axis_labels`; `()` where nothing is labelled.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str = "float64"
    is_torch: bool = False
    labels: tuple[tuple[str, ...], ...] = ()

    def pack(self, theta: Any) -> Any:  # noqa: ANN401 - numpy or torch, the user's structure
        """Rebuild the user's structure from the flat vector.

        Args:
            theta: Shape `(m,)`, numpy or torch.

        Returns:
            A float for one bare number, an array, or a dict of arrays (tensors stay tensors).
        """
        if isinstance(theta, np.ndarray) and (theta == UNMEASURED_VALUE).any():
            theta = np.where(theta == UNMEASURED_VALUE, np.nan, theta)
        parts, start = [], 0
        for shape in self.shapes:
            count = math.prod(shape)
            parts.append(theta[start : start + count].reshape(shape))
            start += count
        if self.names:
            return dict(zip(self.names, parts, strict=True))
        bare = parts[0]
        return float(bare) if not self.shapes[0] and isinstance(bare, np.ndarray) else bare

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(map(math.prod, self.shapes))

    def order_of(self, names: tuple[str, ...]) -> NDArray[np.int64] | None:
        """Where each number of a flat vector with its parts in another order is found in this one.

        Returns:
            Indices of shape `(m,)`; `None` when the order is this one, or the names are others.
        """
        if names == self.names or sorted(names) != sorted(self.names):
            return None
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        sections = dict(zip(self.names, np.split(np.arange(self.size), ends[:-1]), strict=True))
        order: NDArray[np.int64] = np.concatenate([sections[name] for name in names])
        return order

    def reordered(self, names: tuple[str, ...]) -> ThetaLayout:
        """The same structure with its parts in another order."""
        places = [self.names.index(name) for name in names]
        shapes = tuple(self.shapes[place] for place in places)
        labels = tuple(self.labels[place] for place in places) if self.labels else ()
        return replace(self, names=names, shapes=shapes, labels=labels)

    def label_conflict(self, other: ThetaLayout) -> str:
        """Which axis the two have labelled differently, in words; empty when none."""
        pairs = zip(self.labels, other.labels, strict=False)
        for part, (mine, theirs) in enumerate(pairs):
            for axis, (one, another) in enumerate(zip(mine, theirs, strict=False)):
                text = one or another
                is_told = (one and another) or text.startswith(REARRANGED)
                if is_told and one != another:
                    where = f"{self.names[part]!r}, axis {axis}" if self.names else f"axis {axis}"
                    counted = "0, 1, ..."
                    return f"{where} has the labels {one or counted}, not {another or counted}"
        return ""

    def describe(self) -> str:
        """The shapes in words, for messages."""
        if not self.names:
            return f"shape {self.shapes[0]}"
        pairs = zip(self.names, self.shapes, strict=True)
        return "shapes {" + ", ".join(f"{name}: {shape}" for name, shape in pairs) + "}"


def flatten_theta(theta: Any) -> tuple[FloatArray, ThetaLayout]:  # noqa: ANN401 - user's value
    """Flatten an inner solution to one float64 vector on the host.

    Args:
        theta: A number, array, tensor, or dict of them; also tables and series of pandas and
            arrays of xarray, whose labels are kept to be compared. Masked values become NaN.

    Returns:
        The flat vector of shape `(m,)`, a copy that the solver cannot reach, and the layout
        that undoes it.

    Raises:
        TypeError: If a part is no number or array of real numbers, or a key is no text.
        ValueError: If there is no part at all: `None`, or nothing in it.

    Example:
        >>> flat, layout = flatten_theta({"u": np.zeros((2, 3)), "flux": 1.0})
        >>> flat.shape, layout.shapes
        ((7,), ((2, 3), ()))
    """
    if type(theta) is np.ndarray and theta.dtype == np.float64 and theta.size:
        return _without_mark(theta.flatten()), ThetaLayout((), (theta.shape,))
    named = theta if isinstance(theta, Mapping) else {}
    for name in named:
        if not isinstance(name, str):
            raise TypeError(f"{WRONG_TYPE}, with texts as names, got the name {name!r}")
    names = tuple(str(name) for name in named)
    if isinstance(theta, Mapping) and not names:
        raise ValueError("the inner solution is an empty dict")
    given = list(named.values()) if names else [theta]
    parts = [_to_numpy(part) for part in given]
    floats = [part.dtype for part in parts if part.dtype.kind == "f"]
    floats.append(np.dtype("f8"))  # in which theta is kept, whatever finer type it came in
    coarsest = max(floats, key=lambda d: float(np.finfo(d).eps))
    flat = np.concatenate([part.ravel() for part in parts])  # a copy, of a single part too
    if flat.size == 0:
        raise ValueError("the inner solution is empty")
    layout = ThetaLayout(
        names,
        tuple(part.shape for part in parts),
        str(coarsest),
        any(hasattr(part, "detach") for part in given),
        tuple(map(axis_labels, given)) if any(map(is_labelled, given)) else (),
    )
    return _without_mark(flat.astype(np.float64, copy=False)), layout


def _without_mark(flat: FloatArray) -> FloatArray:
    """An answer that underflows as far as `UNMEASURED_VALUE` is there all the same."""
    flat[flat == UNMEASURED_VALUE] = 0.0
    return flat


def _to_numpy(part: Any) -> NDArray[Any]:  # noqa: ANN401 - the user's value
    if hasattr(part, "detach"):
        part = part.detach().cpu()
        if str(part.dtype) == "torch.bfloat16":
            part = part.float()
        part = part.numpy()
    if part is None:
        raise ValueError("the inner solver returned None")
    if isinstance(part, np.ma.MaskedArray):
        part = np.ma.filled(part.astype(np.float64), np.nan)
    array = np.asarray(part)
    if array.dtype.kind not in "fiub":
        hint = "; write nested names as one: {'a.b': ...}" if isinstance(part, Mapping) else ""
        kind = type(part).__name__
        raise TypeError(f"{WRONG_TYPE}, got {kind} of dtype {array.dtype}{hint}")
    return array


@final
@dataclass(frozen=True, eq=False, slots=True)
class Unmeasured:
    """Where a target is missing, so that an inner solution may be NaN."""

    layout: ThetaLayout
    is_missing: NDArray[np.bool_]

    def filled(self, theta: FloatArray, layout: ThetaLayout) -> FloatArray:
        """An inner solution with `UNMEASURED_VALUE` in place of NaN where nothing is measured."""
        if layout.size != self.layout.size or sorted(layout.names) != sorted(self.layout.names):
            return theta
        order = self.layout.order_of(layout.names)
        missing = self.is_missing if order is None else self.is_missing[order]
        return np.where(missing & np.isnan(theta), UNMEASURED_VALUE, theta)
