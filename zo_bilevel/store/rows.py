"""Records as rows of a table and back: every row carries a checksum that is checked on reading.

A file may come from elsewhere, or from a failing disk: whatever a row holds, reading it gives the
record that was written, or nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from zo_bilevel.store.records import StoredRun, StoredSolve

Value: TypeAlias = int | float | str | bytes | None
SEAL: Final = "seal"
APART: Final = ("theta", "number", SEAL)
"""Fields that the seal does not cover: theta by its digest only, the others belong to the row."""
KINDS: Final = {
    "str": (str,),
    "bytes": (bytes,),
    "int": (int,),
    "float": (float, type(None)),
    "float | None": (float, type(None)),
}
BIG: Final = "big int"
"""The kind of a seed, kept as text: it may be larger than any integer of a database."""
MOST_DIGITS: Final = 1000


def _columns(kind: type) -> dict[str, str]:
    fields = dataclasses.fields(kind)
    kinds = {f.name: str(f.type) for f in fields if f.name not in APART}
    return {**kinds, "seed": BIG}


RUN_COLUMNS: Final = _columns(StoredRun)
SOLVE_COLUMNS: Final = _columns(StoredSolve)
"""Names and kinds of what the seal covers, in order."""


def row_of(record: StoredRun | StoredSolve) -> tuple[Value, ...]:
    """A record's columns in order, its seal last.

    Args:
        record: The record; what is not UTF-8 or a NUL is written as an escape.
    """
    columns = RUN_COLUMNS if isinstance(record, StoredRun) else SOLVE_COLUMNS
    values = [_STORED[kind](getattr(record, name)) for name, kind in columns.items()]
    return (*values, seal_of(values))


def run_of(row: Sequence[Value], number: int) -> StoredRun | None:
    """Undo `row_of`: the run; `None` when the row is not as it was written."""
    values = _checked(row, RUN_COLUMNS)
    return None if values is None else StoredRun(**values, number=number)


def solve_of(row: Sequence[Value], number: int, theta: bytes | None = None) -> StoredSolve | None:
    """Undo `row_of`: the solve; `None` when the row is not as it was written."""
    values = _checked(row, SOLVE_COLUMNS)
    if values is None:
        return None
    seal = row[-1]
    return StoredSolve(**values, theta=theta, number=number, seal=bytes(seal))  # type: ignore[arg-type] # bytes: _checked compared it


def seal_of(values: Sequence[Value]) -> bytes:
    """Checksum of a row, 8 bytes.

    Args:
        values: As they are stored, in order.
    """
    plain = [(len(value), "bytes") if isinstance(value, bytes) else value for value in values]
    digest = hashlib.blake2b(repr(plain).encode("utf-8", "surrogatepass"), digest_size=8)
    for value in values:
        if isinstance(value, bytes):
            digest.update(value)
    return digest.digest()


def _text(value: str) -> str:
    if value.isascii() and "\0" not in value:
        return value
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _number(value: float | None) -> float | None:
    """A float of the interpreter's own; a database has no word for NaN but nothing."""
    return None if value is None or math.isnan(value) else float(value)


_STORED: Final[dict[str, Callable[[Any], Value]]] = {
    "str": _text,
    "bytes": bytes,
    "int": int,
    "float": _number,
    "float | None": _number,
    BIG: str,
}


def _checked(row: Sequence[Value], columns: dict[str, str]) -> dict[str, Any] | None:
    *values, seal = row
    if len(values) != len(columns) or seal != seal_of(values):
        return None
    found: dict[str, Any] = {}
    for value, (name, kind) in zip(values, columns.items(), strict=True):
        if kind == BIG:
            if not (isinstance(value, str) and value.isdecimal() and len(value) <= MOST_DIGITS):
                return None
            found[name] = int(value)
        elif type(value) not in KINDS[kind]:
            return None
        else:
            found[name] = math.nan if value is None and kind == "float" else value
    return found
