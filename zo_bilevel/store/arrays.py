"""How arrays and inner solutions lie in a store: little-endian float64 bytes, never a pickle.

Bytes are compressed where that pays; the mantissas of most simulations are as good as random, and
trying to compress them costs more than writing them.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Protocol, cast, get_args

import numpy as np

from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.solve.evaluation import Outcome, Status
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import StoreError

LITTLE_ENDIAN: Final = np.dtype("<f8")
AS_THEY_ARE: Final = b"\0"
"""First byte of an array that is not compressed; zlib's own streams begin with another."""
SAMPLE_BYTES: Final = 1024
WORTH_IT: Final = 0.8
MOST_INFLATED_BYTES: Final = 1 << 30
"""Larger arrays are never compressed, so that no stored bytes may claim to hold more."""

MOST_NUMBERS: Final = 1 << 40


def pack_array(values: FloatArray) -> bytes:
    """Little-endian float64 bytes, compressed where a sample of them shrinks."""
    data = np.ascontiguousarray(values, LITTLE_ENDIAN).tobytes()
    middle = len(data) // 2 // 8 * 8
    sample = data[: SAMPLE_BYTES // 2] + data[middle : middle + SAMPLE_BYTES // 2]
    is_short = len(data) < SAMPLE_BYTES  # points of few parameters, mostly
    is_wide = len(data) > MOST_INFLATED_BYTES
    if is_short or is_wide or len(zlib.compress(sample, 1)) > WORTH_IT * len(sample):
        return AS_THEY_ARE + data
    return zlib.compress(data, 1)


def unpack_array(data: bytes, size: int) -> FloatArray:
    """Undo `pack_array`; `StoreError` if there are more or fewer, or the bytes are damaged.

    Args:
        data: What it gave.
        size: How many numbers there must be; not more than that is inflated.
    """
    length = LITTLE_ENDIAN.itemsize * size
    try:
        if data[:1] == AS_THEY_ARE:
            plain = data[1:]
        elif length > MOST_INFLATED_BYTES:
            raise ValueError(f"{length} bytes are too many to be compressed")
        else:
            stream = zlib.decompressobj()
            plain = stream.decompress(data, length + 1)
            if not stream.eof or stream.unused_data:
                raise ValueError("it is cut short or too long")
        if len(plain) != length:
            raise ValueError(f"it has not {size} numbers")
        return np.frombuffer(plain, LITTLE_ENDIAN).astype(np.float64)
    except (zlib.error, ValueError) as error:
        raise StoreError(f"an array in the store is damaged: {error}") from error


@lru_cache(maxsize=256)
def layout_to_json(layout: ThetaLayout, derivative: tuple[int, ...] | None) -> str:
    """Structure of theta, and shape of the derivative that lies behind it, as text."""
    facts = [layout.names, layout.shapes, layout.dtype, layout.is_torch]
    if layout.labels:
        return json.dumps([*facts, derivative, layout.labels])
    return json.dumps(facts if derivative is None else [*facts, derivative])


@lru_cache(maxsize=256)
def layout_from_json(text: str) -> tuple[ThetaLayout, tuple[int, ...] | None]:
    """Undo `layout_to_json`; `StoreError` if the text is damaged."""
    try:
        names, shapes, dtype, is_torch, *rest = json.loads(text)
        derivative, labels = rest[0] if rest else None, rest[1] if len(rest) > 1 else ()
        layout = ThetaLayout(
            tuple(map(str, names)),
            tuple(map(_shape, shapes)),
            str(dtype),
            is_torch,
            tuple(tuple(map(str, part)) for part in labels),
        )
        is_known = type(is_torch) is bool and np.dtype(layout.dtype).kind == "f"
        if not is_known or len(layout.shapes) != max(len(layout.names), 1):
            raise ValueError("it has no structure")
        return layout, None if derivative is None else _shape(derivative)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"a structure of theta in the store is damaged: {error}") from error


def _shape(lengths: Sequence[Any]) -> tuple[int, ...]:
    is_shape = all(type(length) is int and length >= 0 for length in lengths)
    if not is_shape or math.prod(lengths) > MOST_NUMBERS:
        raise ValueError(f"{lengths!r} is no shape")
    return tuple(lengths)


class HoldsOutcome(Protocol):
    """The part of a stored solve that the dispatcher gave."""

    @property
    def status(self) -> str: ...  # noqa: D102 - as in StoredSolve

    @property
    def seconds(self) -> float: ...  # noqa: D102 - as in StoredSolve

    @property
    def cost(self) -> float: ...  # noqa: D102 - as in StoredSolve

    @property
    def error(self) -> str: ...  # noqa: D102 - as in StoredSolve

    @property
    def worker(self) -> str: ...  # noqa: D102 - as in StoredSolve

    @property
    def layout(self) -> str: ...  # noqa: D102 - as in StoredSolve

    @property
    def theta(self) -> bytes | None: ...  # noqa: D102 - as in StoredSolve


def outcome_of_solve(solve: HoldsOutcome) -> Outcome:
    """A stored solve as the dispatcher gave it; `StoreError` if it holds what no solve gives."""
    if solve.status not in get_args(Status):
        raise StoreError(f"a solve in the store has the status {solve.status!r}")
    theta = derivative = layout = None
    if solve.layout:
        layout, shape = layout_from_json(solve.layout)
    if solve.theta is not None and layout is not None:
        behind = 0 if shape is None else math.prod(shape)
        both = unpack_array(solve.theta, layout.size + behind)
        theta = both[: layout.size]
        derivative = None if shape is None else both[layout.size :].reshape(shape)
    if (solve.status == "ok") != (theta is not None):
        raise StoreError(f"a solve in the store is {solve.status} and lacks its answer, or has one")
    facts = (solve.seconds, solve.cost, solve.error, solve.worker)
    return Outcome(cast(Status, solve.status), theta, layout, *facts, derivative)


def packed_theta(outcome: Outcome) -> bytes | None:
    """Theta as it is stored: its derivative, where it has one, flat behind it."""
    if outcome.theta is None:
        return None
    if outcome.derivative is None:
        return pack_array(outcome.theta)
    return pack_array(np.concatenate([outcome.theta, outcome.derivative.ravel()]))
