"""How arrays and inner solutions lie in a store: little-endian float64 bytes, never a pickle.

Bytes are compressed where that pays; the mantissas of most simulations are as good as random, and
trying to compress them costs more than writing them. Inner solutions above `LARGE_THETA_BYTES` go
to a file of their own in the directory `<store>.theta`, named by their content.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.solve.evaluation import Outcome
from zo_bilevel.store.store import explained
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import StoreError

LITTLE_ENDIAN = np.dtype("<f8")
LARGE_THETA_BYTES = 1 << 20
AS_THEY_ARE = b"\0"
"""First byte of an array that is not compressed; zlib's own streams begin with another."""
SAMPLE_BYTES = 1024
WORTH_IT = 0.8


def pack_array(values: FloatArray) -> bytes:
    """Little-endian float64 bytes, compressed where a sample of them shrinks.

    Args:
        values: Any shape; only the numbers are kept.
    """
    data = np.ascontiguousarray(values, LITTLE_ENDIAN).tobytes()
    middle = len(data) // 2 // 8 * 8
    sample = data[: SAMPLE_BYTES // 2] + data[middle : middle + SAMPLE_BYTES // 2]
    is_short = len(data) < SAMPLE_BYTES  # points of few parameters, mostly
    if is_short or len(zlib.compress(sample, 1)) > WORTH_IT * len(sample):
        return AS_THEY_ARE + zlib.crc32(data).to_bytes(4, "little") + data
    return zlib.compress(data, 1)


def unpack_array(data: bytes) -> FloatArray:
    """Undo `pack_array`.

    Raises:
        StoreError: If the bytes are damaged.
    """
    try:
        if data[:1] != AS_THEY_ARE:
            plain = zlib.decompress(data)  # which has a checksum of its own
        elif zlib.crc32(plain := data[5:]).to_bytes(4, "little") != data[1:5]:
            raise ValueError("its checksum is wrong")
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
    """Undo `layout_to_json`.

    Raises:
        StoreError: If the text is damaged.
    """
    try:
        names, shapes, dtype, is_torch, *rest = json.loads(text)
        derivative, labels = rest[0] if rest else None, rest[1] if len(rest) > 1 else ()
        layout = ThetaLayout(
            tuple(names),
            tuple(map(tuple, shapes)),
            dtype,
            bool(is_torch),
            tuple(map(tuple, labels)),
        )
        return layout, None if derivative is None else tuple(derivative)
    except (ValueError, TypeError) as error:
        raise StoreError(f"a structure of theta in the store is damaged: {error}") from error


def write_theta_file(store: Path, data: bytes) -> str:
    """Put a large inner solution beside the store; the name is its content's hash.

    Args:
        store: The store file.
        data: Compressed bytes.

    Returns:
        The file's name inside `<store>.theta`.
    """
    folder = store.with_name(store.name + ".theta")
    name = hashlib.sha256(data).hexdigest() + ".f8z"
    folder.mkdir(exist_ok=True)
    if not (folder / name).exists():
        partial = folder / f"{name}.{os.getpid()}.part"
        partial.write_bytes(data)
        partial.replace(folder / name)
    return name


def read_theta_file(store: Path, name: str) -> bytes:
    """Bytes of a large inner solution.

    Raises:
        StoreError: If the file is gone.
    """
    path = store.with_name(store.name + ".theta") / Path(name).name
    with explained(store, "read a large inner solution of"):
        return path.read_bytes()


def outcome_from_row(store: Path, row: dict[str, Any]) -> Outcome:
    """Rebuild an outcome from a row of the table `evaluations`.

    Args:
        store: The store file, for large inner solutions.
        row: The row.

    Returns:
        The outcome as the dispatcher gave it.

    Raises:
        StoreError: If the row is damaged.
    """
    theta = derivative = layout = None
    if row["theta_file"]:
        theta = unpack_array(read_theta_file(store, row["theta_file"]))
    elif row["theta"] is not None:
        theta = unpack_array(row["theta"])
    if row["layout"] is not None:
        layout, shape = layout_from_json(row["layout"])
        if theta is not None and shape is not None:
            theta, behind = theta[: layout.size], theta[layout.size :]
            derivative = behind.reshape(shape)
    facts = (row["seconds"], row["cost"], row["error"], row["worker"])
    return Outcome(row["status"], theta, layout, *facts, derivative)


def with_derivative(outcome: Outcome) -> FloatArray | None:
    """Theta as it is stored: its derivative, where it has one, flat behind it."""
    if outcome.theta is None or outcome.derivative is None:
        return outcome.theta
    both: FloatArray = np.concatenate([outcome.theta, outcome.derivative.ravel()])
    return both
