"""Real English text that every Python carries: the documentation strings of its own library.

They are read from the library's source files and never from imported modules: other packages
replace functions of the standard library when they are imported, and what a process has imported
must not decide which numbers a seed gives.
"""

import ast
import functools
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.errors import InputError

SOURCE_FILES = (
    "argparse.py",
    "ast.py",
    "asyncio/events.py",
    "asyncio/locks.py",
    "asyncio/queues.py",
    "asyncio/streams.py",
    "asyncio/tasks.py",
    "bisect.py",
    "calendar.py",
    "collections/__init__.py",
    "contextlib.py",
    "copy.py",
    "csv.py",
    "difflib.py",
    "email/message.py",
    "enum.py",
    "fractions.py",
    "functools.py",
    "heapq.py",
    "html/parser.py",
    "inspect.py",
    "json/__init__.py",
    "json/decoder.py",
    "json/encoder.py",
    "logging/__init__.py",
    "pprint.py",
    "queue.py",
    "random.py",
    "shutil.py",
    "socket.py",
    "statistics.py",
    "string.py",
    "subprocess.py",
    "tarfile.py",
    "tempfile.py",
    "textwrap.py",
    "threading.py",
    "types.py",
    "unittest/case.py",
    "urllib/parse.py",
    "weakref.py",
    "zipfile.py",
)
"""Of the standard library, all in Python; those that a version does not have are left out."""
MIN_DOCUMENT_LENGTH = 120
Definition: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef"


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

    They depend on the version of Python and on nothing else.

    Raises:
        InputError: If this Python comes without the sources of its library.

    Example:
        >>> len(documents()) > 100
        True
    """
    library = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Document] = {}
    for name in SOURCE_FILES:
        path = library / name
        if path.is_file():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            found |= {document.name: document for document in _documented(tree, module)}
    if not found:
        raise InputError(f"the library of this Python has no source files in {library}")
    return tuple(found[name] for name in sorted(found))


def _documented(tree: ast.Module, module: str) -> Iterator[Document]:
    """Public functions, classes and methods whose text is long enough."""
    for name, node in _public(tree.body, module):
        yield from _document(name, node)
        if isinstance(node, ast.ClassDef):
            for method_name, method in _public(node.body, name):
                yield from _document(method_name, method)


def _public(body: list[ast.stmt], inside: str) -> Iterator[tuple[str, Definition]]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not node.name.startswith("_"):
            yield f"{inside}.{node.name}", node


def _document(name: str, node: Definition) -> Iterator[Document]:
    text = ast.get_docstring(node)
    if text and len(text) >= MIN_DOCUMENT_LENGTH and text.isascii():
        summary = re.split(r"(?<=[.!?])\s|\n\n", text)[0].replace("\n", " ")
        yield Document(name, text, summary)


def rows_of_bytes(texts: list[str], length: int) -> NDArray[np.int64]:
    """Texts as rows of ASCII codes, cut or filled with code 0: shape `(rows, length)`, int64.

    Example:
        >>> rows_of_bytes(["ab", "abcd"], 3).tolist()
        [[97, 98, 0], [97, 98, 99]]
    """
    rows = np.zeros((len(texts), length), dtype=np.int64)
    for row, text in zip(rows, texts, strict=True):
        codes = np.frombuffer(text[:length].encode("ascii"), np.uint8)
        row[: len(codes)] = codes
    return rows
