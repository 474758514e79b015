"""One HTTP answer of a chat model: read within bounds, judged, taken apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from zo_bilevel.adapters.http.deadline import raw_chunks
from zo_bilevel.adapters.http.retry_after import retry_after
from zo_bilevel.support.errors import SolveError
from zo_bilevel.support.redaction import hide

RETRIED_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
MAX_ANSWER_BYTES = 1 << 23
SHOWN_CHARACTERS = 200

Alternatives: TypeAlias = Sequence[Mapping[str, Any]]
Usage: TypeAlias = Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        text: What the model wrote.
        alternatives: Log-probabilities of its first token, where given.
        cost: Of the call, its lost attempts included.
    """

    text: str
    alternatives: Alternatives
    cost: float


class FaultError(Exception):
    """An attempt that may be made again."""

    def __init__(
        self,
        what: str,
        *,
        may_be_charged: bool,
        wait_s: float = 0.0,
        is_slow: bool = False,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(what)
        self.may_be_charged, self.wait_s, self.is_slow = may_be_charged, wait_s, is_slow
        self.usage = usage


def read_body(response: Any) -> bytes:  # noqa: ANN401 - an httpx response
    """Read an answer that must be within bounds.

    Raises:
        FaultError: If it is not.
        SolveError: If it is compressed.
    """
    content = bytearray()
    for chunk in raw_chunks(response):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            what = f"gave an answer of more than {MAX_ANSWER_BYTES} bytes"
            raise FaultError(what, may_be_charged=True)
    return bytes(content)


def check_status(response: Any, content: bytes, key: str) -> None:  # noqa: ANN401
    """Refuse an answer that is no success.

    Raises:
        FaultError: If it may be asked for again.
        SolveError: If it may not.
    """
    if response.is_success:
        return
    shown = hide(content.decode(errors="replace"), [key])[:SHOWN_CHARACTERS].strip()
    what = f"answered with status {response.status_code}: {shown!r}"
    if response.status_code in RETRIED_STATUSES:
        wait_s = retry_after(response.headers.get("Retry-After", ""))
        raise FaultError(what, may_be_charged=False, wait_s=wait_s)
    raise SolveError(what)


def read_answer(content: bytes, key: str) -> tuple[str, Alternatives, Usage | None]:
    """Read an answer; one that cannot be read is a fault, and may have been charged."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        shown = hide(content.decode(errors="replace"), [key])[:SHOWN_CHARACTERS]
        raise FaultError(f"gave no JSON: {shown!r}", may_be_charged=True) from None
    usage = document.get("usage") if isinstance(document, dict) else None
    usage = usage if isinstance(usage, dict) else None
    try:
        choice = document["choices"][0]
        text = choice["message"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is no text")
    except (KeyError, IndexError, TypeError, AttributeError):
        what = "gave an answer without choices"
        raise FaultError(what, may_be_charged=True, usage=usage) from None
    return text, _alternatives(choice), usage


def _alternatives(choice: Mapping[str, Any]) -> Alternatives:
    try:
        first = choice["logprobs"]["content"][0]
        found = first.get("top_logprobs") or [first]
        return [part for part in found if isinstance(part, dict)]
    except (KeyError, IndexError, TypeError, AttributeError):
        return ()
