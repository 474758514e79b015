"""A text classification that every machine has: first lines of Python's docstrings, by topic.

Each row is the first line of the documentation of a function, class or method of the standard
library; its class is the topic of the module it is in.
"""

import functools
import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeAlias

from zo_bilevel.support.errors import InputError

Row: TypeAlias = tuple[str, str]

TOPICS: dict[str, tuple[str, ...]] = {
    "numbers": ("math", "cmath", "decimal", "fractions", "statistics", "random"),
    "text": ("string", "re", "textwrap", "difflib", "html.parser", "codecs", "pprint"),
    "files": ("os.path", "pathlib", "shutil", "tempfile", "tarfile", "zipfile", "glob", "gzip"),
    "network": ("socket", "http.client", "urllib.request", "urllib.parse", "ssl", "smtplib",
                "ftplib", "imaplib", "socketserver", "http.cookiejar"),
    "time": ("time", "datetime", "calendar", "sched", "zoneinfo"),
    "concurrency": ("threading", "queue", "concurrent.futures", "asyncio.locks", "asyncio.tasks",
                    "asyncio.events", "multiprocessing.pool", "multiprocessing.managers"),
}  # fmt: skip
LABEL_TEXTS: dict[str, str] = {
    "numbers": "numbers and mathematics",
    "text": "text and strings",
    "files": "files and directories",
    "network": "network connections and the internet",
    "time": "dates, clocks and calendars",
    "concurrency": "threads, tasks and locks",
}
SHORTEST_SUMMARY, LONGEST_SUMMARY = 25, 110


@functools.cache
def docstring_rows() -> tuple[Row, ...]:
    """All rows `(text, topic)`, without duplicates, in the order of their text.

    Raises:
        InputError: If Python runs without docstrings (`-OO`).

    Example:
        >>> rows = docstring_rows()
        >>> len(rows) > 400, sorted({topic for _, topic in rows}) == sorted(TOPICS)
        (True, True)
    """
    found: dict[str, set[str]] = {}
    for topic, names in TOPICS.items():
        for name in names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some modules announce their end
                module = importlib.import_module(name)
            for text in _first_lines(module):
                found.setdefault(text, set()).add(topic)
    rows = [(text, topics.pop()) for text, topics in sorted(found.items()) if len(topics) == 1]
    if {topic for _, topic in rows} != set(TOPICS):
        raise InputError("there are no docstrings: run Python without -OO")
    return tuple(rows)


def _first_lines(module: ModuleType) -> Iterator[str]:
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not _is_own(value, module):
            continue
        yield from _first_line(value)
        if inspect.isclass(value):
            for member, method in sorted(vars(value).items()):
                if not member.startswith("_") and callable(method):
                    yield from _first_line(method)


def _is_own(value: Any, module: ModuleType) -> bool:  # noqa: ANN401 - anything in a module
    home = getattr(value, "__module__", "") or ""
    is_code = inspect.isclass(value) or inspect.isroutine(value)
    return is_code and home.lstrip("_").split(".")[0] == module.__name__.split(".")[0]


def _first_line(value: Any) -> Iterator[str]:  # noqa: ANN401 - a class or a function
    """The first sentence of its documentation, where that is one of a fit length."""
    text = getattr(value, "__doc__", None)
    if not isinstance(text, str):
        return
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s", paragraph)[0]
    is_signature = re.match(r"[\w.]+\(", sentence) is not None
    if (
        SHORTEST_SUMMARY <= len(sentence) <= LONGEST_SUMMARY
        and sentence.isascii()
        and not is_signature
    ):
        yield sentence
