"""Which points a fault hits: decided by a hash, so that it is the same everywhere and always."""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from zo_bilevel.support.errors import InputError

Phi: TypeAlias = Mapping[str, Any]


def chance(phi: Phi, seed: int | None, salt: str) -> float:
    """A number in [0, 1) that depends on the point, the seed and a word, and on nothing else.

    Example:
        >>> chance({"a": 1.0}, 0, "crash") == chance({"a": 1.0}, 0, "crash")
        True
        >>> chance({"a": 1.0}, 0, "crash") == chance({"a": 1.0}, 1, "crash")
        False
    """
    return int.from_bytes(digest(phi, seed, salt)[:7], "big") / 2**56


def check_share(name: str, value: float) -> None:
    """Refuse a probability outside [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} must be in [0, 1], got {value}")


def digest(phi: Phi, seed: int | None, salt: str) -> bytes:
    """Hash a point and a seed; alike for numpy, torch and plain Python numbers of one value.

    Returns:
        16 bytes.
    """
    state = hashlib.blake2b(f"{salt}|{seed}".encode(), digest_size=16)
    for name in sorted(phi):
        value = np.asarray(phi[name])
        number = value.dtype.kind in "fiub"
        state.update(f"|{name}|{value.shape}|".encode())
        state.update(value.astype(np.float64).tobytes() if number else repr(phi[name]).encode())
    return state.digest()
