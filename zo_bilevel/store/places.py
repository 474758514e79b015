"""Where a store may be: a file, or a database by its address."""

from __future__ import annotations

import os

from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.postgres import SCHEMES, PostgresStore
from zo_bilevel.store.sqlite import SQLiteStore


def open_store(
    place: str | os.PathLike[str], *, read_only: bool = False, must_exist: bool = False
) -> AbstractStore:
    """Open a store.

    Args:
        place: A file, or an address such as "postgresql://user@host/database".
        read_only: Only look at a file; a database decides itself what one may.
        must_exist: Refuse a file that is missing.

    Raises:
        InputError: If the file cannot be a store.
        StoreError: If the place cannot be used, or is no store of this version.
    """
    if isinstance(place, str) and place.startswith(SCHEMES):
        return PostgresStore(place)
    return SQLiteStore(place, read_only=read_only, must_exist=must_exist)
