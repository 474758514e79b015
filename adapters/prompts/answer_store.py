"""Raw answers in a file beside the store: to go on from, and to look at."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from zo_bilevel.adapters.prompts.bill import opened, rows_of
from zo_bilevel.adapters.prompts.chat_answer import Answer
from zo_bilevel.support.errors import StopRunError

TABLE = (
    "CREATE TABLE IF NOT EXISTS answers "
    "(place INTEGER PRIMARY KEY, key TEXT, request TEXT NOT NULL, answer TEXT NOT NULL)"
)
INDEX = "CREATE INDEX IF NOT EXISTS answers_by_key ON answers (key)"


@final
class AnswerStore:
    """Answers by their requests: in a file once there is one, until then nowhere."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock, self._owner = threading.Lock(), os.getpid()
        self._connection: sqlite3.Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self._file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._file = state["file"]
        self._begin()

    def keep_in(self, file: Path) -> None:
        """Keep answers in a file from now on, and know those that it holds."""
        with self._lock:
            if file != self._file and self._connection is not None:
                self._connection.close()
                self._connection = None
            self._file = file

    def find(self, key: str) -> Answer | None:
        """The answer to a request; none without a file."""
        if self._file is None or not key:
            return None
        ask = "SELECT answer FROM answers WHERE key = ? ORDER BY place LIMIT 1"
        with self._lock:
            row = self._opened().execute(ask, (_digest(key),)).fetchone()
        return None if row is None else Answer(**json.loads(row[0]))

    def add(self, key: str, request: Mapping[str, Any], answer: Answer) -> None:
        """Keep an answer; one without a key is kept to be looked at only.

        Raises:
            StopRunError: If the file cannot be written.
        """
        if self._file is None:
            return
        texts = [json.dumps(part) for part in (dict(request), dataclasses.asdict(answer))]
        write = "INSERT INTO answers (key, request, answer) VALUES (?, ?, ?)"
        try:
            with self._lock:
                self._opened().execute(write, (_digest(key) if key else None, *texts))
        except sqlite3.Error as error:
            raise StopRunError(f"cannot keep answers in {self._file}: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._connection = opened(Path(self._file or ""))
            for statement in (TABLE, INDEX):
                self._connection.execute(statement)
        return self._connection


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def kept_answers(file: Path) -> Iterator[tuple[dict[str, Any], Answer]]:
    """Requests and their answers, in the order they came; none when the file holds none."""
    for request, answer in rows_of(file, "answers", "request, answer"):
        yield json.loads(request), Answer(**json.loads(answer))
