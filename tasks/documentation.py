"""Real English text that every Python carries: the documentation strings of its own library."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

MODULES = (
    "argparse",
    "ast",
    "asyncio",
    "bisect",
    "calendar",
    "collections",
    "contextlib",
    "copy",
    "csv",
    "datetime",
    "decimal",
    "difflib",
    "email.message",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "html",
    "inspect",
    "itertools",
    "json",
    "logging",
    "math",
    "pathlib",
    "pprint",
    "queue",
    "random",
    "re",
    "shutil",
    "socket",
    "sqlite3",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "types",
    "unittest",
    "urllib.parse",
    "weakref",
    "zipfile",
)
SHORTEST = 120


@final
@dataclass(frozen=True, slots=True)
class Document:
    """One documentation string.

    Args:
        name: Dotted name of what it documents.
        text: The whole string.
        summary: Its first sentence.
    """

    name: str
    text: str
    summary: str


@functools.cache
def documents() -> tuple[Document, ...]:
    """Documentation strings of at least 120 characters, in the order of their names.

    Example:
        >>> len(documents()) > 100
        True
    """
    found = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module_name:
                continue
            text = inspect.getdoc(value) if callable(value) else None
            if text and len(text) >= SHORTEST and text.isascii():
                summary = re.split(r"(?<=[.!?])\s|\n\n", text)[0].replace("\n", " ")
                full = f"{module_name}.{name}"
                found[full] = Document(full, text, summary)
    return tuple(found[name] for name in sorted(found))


def rows_of_bytes(texts: list[str], length: int) -> NDArray[np.int64]:
    """Texts as rows of ASCII codes, cut or filled with code 0.

    Args:
        texts: ASCII.
        length: Columns.

    Returns:
        Shape `(rows, length)`, int64.

    Example:
        >>> rows_of_bytes(["ab", "abcd"], 3).tolist()
        [[97, 98, 0], [97, 98, 99]]
    """
    rows = np.zeros((len(texts), length), dtype=np.int64)
    for row, text in zip(rows, texts, strict=True):
        codes = np.frombuffer(text[:length].encode("ascii"), np.uint8)
        row[: len(codes)] = codes
    return rows
