"""Runs remembered on disk, a file each, and made on several processes where they are missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

Record = TypeVar("Record")
"""A frozen dataclass of numbers, words and tuples of them."""


@dataclass(frozen=True)
class Work(Generic[Record]):
    """A run that may have been made before.

    Args:
        make: Makes it; importable with its arguments, so that other processes can call it.
        file: Where it is remembered, or `None`.
    """

    make: Callable[[], Record]
    file: Path | None


def results(
    work: Iterable[Work[Record]], kind: type[Record], processes: int = 1
) -> Iterator[Record]:
    """Make the runs that are not remembered, and remember them.

    Args:
        work: Which.
        kind: What a run is kept as.
        processes: How many runs at once, >= 1.

    Yields:
        Remembered runs first, then the others in the order in which they end.
    """
    missing = []
    for one in work:
        if one.file is not None and one.file.exists():
            yield kind(**{name: _plain(value) for name, value in _read(one.file).items()})
        else:
            missing.append(one)
    if processes == 1:
        yield from map(_made, missing)
        return
    with ProcessPoolExecutor(processes) as pool:
        for future in as_completed([pool.submit(_made, one) for one in missing]):
            yield future.result()


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _made(work: Work[Record]) -> Record:
    record = work.make()
    if work.file is not None:
        work.file.parent.mkdir(parents=True, exist_ok=True)
        waiting = work.file.with_suffix(f".{os.getpid()}")
        waiting.write_text(json.dumps(asdict(record)), encoding="utf-8")  # type: ignore[call-overload]
        waiting.replace(work.file)
    return record
