"""Labelled texts for prompt tuning: read from CSV or JSONL, split into k shots and a test set."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.adapters.prompts.chat_checks import conflict_of
from zo_bilevel.adapters.prompts.prompt_template import refuse_unwritable
from zo_bilevel.support.errors import InputError, unknown_name_message

Row: TypeAlias = tuple[str, str]


@final
@dataclass(frozen=True, slots=True)
class Texts:
    """Texts and the class of each.

    Args:
        texts: The texts.
        labels: As many names of classes.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in alphabetical order."""
        return tuple(sorted(set(self.labels)))

    def take(self, rows: Sequence[int]) -> Texts:
        """Some of the rows."""
        return Texts(tuple(self.texts[k] for k in rows), tuple(self.labels[k] for k in rows))

    def first_rows(self) -> list[int]:
        """The row of each different text, the first where it appears several times.

        Example:
            >>> Texts(("a", "b", "a"), ("x", "y", "x")).first_rows()
            [0, 1]
        """
        return sorted({text: k for k, text in reversed(list(enumerate(self.texts)))}.values())


@final
@dataclass(frozen=True, slots=True)
class Split:
    """The examples to tune on, and those that tuning never sees.

    Args:
        train: k of each class, class by class.
        test: The rest.
    """

    train: Texts
    test: Texts


def from_rows(rows: Sequence[Row]) -> Texts:
    """Texts from pairs `(text, label)`."""
    return Texts(tuple(text for text, _ in rows), tuple(label for _, label in rows))


def read_texts(
    path: str | os.PathLike[str], *, text_column: str = "text", label_column: str = "label"
) -> Texts:
    """Read labelled texts.

    Args:
        path: A `.csv` file with a header, or `.jsonl` with an object a line.
        text_column: Name of the column of texts.
        label_column: Name of the column of labels; numbers and truth values become text.

    Returns:
        The rows in the order of the file.

    Raises:
        InputError: If the file is missing, of another kind, or lacks a column; if a row has no
            text or no label, with its line.
    """
    file = Path(path)
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if file.suffix.lower() not in readers:
        raise InputError(f"data must be a .csv or .jsonl file, got {file.name!r}")
    try:
        rows = readers[file.suffix.lower()](file)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name} is not UTF-8: {error}") from error
    if not rows:
        raise InputError(f"{file.name} has no rows")
    columns = (text_column, label_column)
    return from_rows([_checked_row(f"{file.name} line {n}", row, *columns) for n, row in rows])


def _checked_row(where: str, row: dict[str, Any], text_column: str, label_column: str) -> Row:
    for column in (text_column, label_column):
        if column not in row:
            raise InputError(f"{where}: {unknown_name_message('column', column, map(str, row))}")
    text, label = row[text_column], row[label_column]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: {text_column} is empty or no text")
    if label is None or not str(label).strip():
        raise InputError(f"{where}: {label_column} is empty")
    for column, value in ((text_column, text), (label_column, str(label))):
        refuse_unwritable(f"{where}: {column}", value)
    return text, str(label).strip()


def _csv_rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{file.name} line {reader.line_num}: as many cells as the header are "
                        "needed; put texts with commas in quotes"
                    )
                rows.append((reader.line_num, dict(row)))
        except csv.Error as error:
            raise InputError(f"{file.name} line {reader.line_num}: {error}") from error
        return rows


def _jsonl_rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{file.name} line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{file.name} line {number} must be an object, got {row!r}")
        rows.append((number, row))
    return rows


def split_shots(data: Texts, shots: int, seed: int = 0, *, max_test: int | None = None) -> Split:
    """Draw k examples of each class to tune on; all others are for the test only.

    A text that appears several times is taken once, with the label it has first; a warning says
    where it has another one, too.

    Args:
        data: All rows.
        shots: Examples k of each class, >= 1.
        seed: Of the draw, >= 0.
        max_test: Keep so many test rows at most, drawn by the seed; `None` for all.

    Returns:
        The split, the same for the same rows and seed.

    Raises:
        InputError: If a class has fewer than k different texts, or nothing is left to test on.

    Example:
        >>> data = Texts(("a", "b", "c", "d"), ("x", "x", "y", "y"))
        >>> [len(part) for part in (split_shots(data, 1).train, split_shots(data, 1).test)]
        [2, 2]
    """
    if not isinstance(shots, int) or isinstance(shots, bool) or shots < 1:
        raise InputError(f"shots must be a whole number >= 1, got {shots!r}")
    if len(data.classes) < 2:
        raise InputError(f"there must be at least 2 classes, got {list(data.classes)}")
    _warn_of_conflict(data)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    unique = data.first_rows()
    counts = Counter(data.labels[row] for row in unique)
    for name in data.classes:
        if counts[name] < shots:
            raise InputError(f"class {name!r} has {counts[name]} examples, shots is {shots}")
    train: list[int] = []
    for name in data.classes:
        members = [row for row in unique if data.labels[row] == name]
        train += sorted(int(row) for row in rng.choice(members, shots, replace=False))
    taken = set(train)
    test = [row for row in unique if row not in taken]
    if not test:
        raise InputError(f"shots={shots} leaves no example to test on")
    if max_test is not None and len(test) > max_test:
        test = sorted(int(row) for row in rng.choice(test, max_test, replace=False))
    return Split(data.take(train), data.take(test))


def _warn_of_conflict(data: Texts) -> None:
    if conflict := conflict_of(data.texts, data.labels):
        warnings.warn(f"{conflict}; the first is taken", stacklevel=3)


def read_candidates(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Candidate instructions from a file: a JSON list, or one a line.

    Args:
        path: A `.json` file, or a text file in which empty lines and lines that begin with "#"
            are left out.

    Raises:
        InputError: If the file cannot be read or holds fewer than 2 different candidates.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
        found = json.loads(text) if file.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read candidates from {file}: {error}") from error
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise InputError(f"{file.name} must hold a JSON list of strings")
    lines = [line.strip() for line in found]
    kept = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if len(kept) < 2:
        raise InputError(f"{file.name} must hold at least 2 different candidates, got {len(kept)}")
    return kept
