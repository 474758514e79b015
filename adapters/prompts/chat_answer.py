"""One HTTP answer of a chat model: read within bounds, judged, taken apart."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from zo_bilevel.adapters.http.deadline import raw_chunks
from zo_bilevel.adapters.http.retry_after import retry_after
from zo_bilevel.support.errors import StopRunError
from zo_bilevel.support.redaction import hide

RETRIED_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
MAX_ANSWER_BYTES = 1 << 23
SHOWN_CHARACTERS = 200
REFUSALS_OF_ONE = {
    "filtered": ("content_filter", "content management policy", "content_policy", "safety system"),
    "too_long": ("context_length", "context length", "context too long", "maximum context"),
}
"""Marks of refusals that concern one example and not the run."""
OVER_MARKS = (
    *("quota", "billing", "insufficient funds", "credit balance"),
    *("api key", "unauthorized", "not authenticated"),
)
"""Marks of refusals that end the run, whatever their status."""
RATE_MARKS = ("per minute", "per second", "rate limit", "rate_limit")
REASONS = {
    **dict.fromkeys(("length", "max_tokens"), "cut_short"),
    **dict.fromkeys(("content_filter", "safety", "prohibited_content", "recitation"), "filtered"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), "tool_calls"),
}
REASONING = re.compile(r"\A.*</think>|\A\s*<think>.*", re.DOTALL)
TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
TEXT_PARTS = ("text", "output_text")
MOST_UNREAD = 0.1
"""Share of answers above which a warning says why they cannot be read."""

Alternatives: TypeAlias = Sequence[Mapping[str, Any]]
Usage: TypeAlias = Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        text: What the model wrote, without its reasoning.
        alternatives: Log-probabilities of the first token of that, where given.
        unread_as: What an answer that names no class is counted as, a field of `Spent`.
        cost: Of the call, its lost attempts included.
        is_known: Whether it was asked for, and counted, before.
    """

    text: str = ""
    alternatives: Alternatives = ()
    unread_as: str = "unparsable"
    cost: float = 0.0
    is_known: bool = False

    def for_nothing(self) -> Answer:
        """The same, known already."""
        return dataclasses.replace(self, cost=0.0, is_known=True)


class FaultError(Exception):
    """An attempt that may be made again."""

    def __init__(
        self,
        what: str,
        *,
        may_be_charged: bool,
        wait_s: float = 0.0,
        is_slow: bool = False,
        is_away: bool = False,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(what)
        self.may_be_charged, self.wait_s, self.is_slow = may_be_charged, wait_s, is_slow
        self.is_away, self.usage = is_away, usage


class RefusedError(StopRunError):
    """A request is refused, for its settings or for its example."""


def read_body(response: Any) -> bytes:  # noqa: ANN401 - an httpx response
    """Read an answer that must be within bounds.

    Raises:
        FaultError: If it is not.
        StopRunError: If it is compressed.
    """
    content = bytearray()
    for chunk in raw_chunks(response):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            what = f"gave an answer of more than {MAX_ANSWER_BYTES} bytes"
            raise FaultError(what, may_be_charged=True)
    return bytes(content)


def unread_words(unread: Sequence[Answer], count: int, *, is_scored: bool) -> str:
    """How many of `count` answers cannot be read, or are cut, why, and one of them."""
    names = [answer.unread_as for answer in unread]
    kinds = ", ".join(f"{name}: {names.count(name)}" for name in dict.fromkeys(names))
    text = next((answer.text for answer in unread if answer.text), "")
    fault = "have no text" if is_scored else "name no class"
    fault += " or are cut at max_tokens" if is_scored and text else ""
    shown = f", such as {text[:80]!r}" if text else ""
    shown += "; raise max_tokens" if "cut_short" in names else ""
    return f"{len(unread)} of {count} answers {fault} ({kinds}){shown}"


def read_answer(response: Any, content: bytes, key: str) -> tuple[Answer, Usage | None]:  # noqa: ANN401
    """Understand an answer, and what the server counted.

    Raises:
        FaultError: If it may be asked for again.
        StopRunError: If every further request would be answered like this one.
    """
    shown = hide(content.decode(errors="replace"), [key]).strip()
    page = shown.startswith("<")
    what = "sent HTML, not JSON" if page else "gave no JSON"
    shown = " ".join(TAGS.sub(" ", shown).split()) if page else shown
    shown = shown[:SHOWN_CHARACTERS].strip()
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    fields = document if isinstance(document, dict) else {}
    if not response.is_success or ("error" in fields and not fields.get("choices")):
        return refusal(response, fields, shown, f", {what}" if page else ""), None
    if document is None:
        raise FaultError(f"{what}: {shown!r}", may_be_charged=True)
    return answer_of(fields, shown)


def answer_of(fields: Mapping[str, Any], shown: str = "") -> tuple[Answer, Usage | None]:
    """Understand a completion, and what the server counted; `FaultError` if it holds no answer."""
    usage = fields.get("usage")
    usage = usage if isinstance(usage, dict) else None
    try:
        return _answer_of(fields["choices"][0]), usage
    except (KeyError, IndexError, TypeError, AttributeError):
        what = "gave an answer without choices" + (f": {shown!r}" if shown else "")
        raise FaultError(what, may_be_charged=True, usage=usage) from None


def refusal(response: Any, fields: Mapping[str, Any], shown: str, form: str = "") -> Answer:  # noqa: ANN401
    """What a refusal means: for this example, for this moment, or for the run.

    Raises:
        FaultError: If it may be asked again.
        RefusedError: If settings or this example are refused: who asks knows more.
        StopRunError: If every further request would be refused like this one.
    """
    error, status = fields.get("error"), response.status_code
    code = error.get("code") if isinstance(error, dict) else None
    words, what = shown.casefold(), f"answered with status {status}{form}: {shown!r}"
    if response.is_success and isinstance(code, int):
        status = code
    for name, marks in REFUSALS_OF_ONE.items():
        if status in (200, 400, 403, 413, 422) and any(mark in words for mark in marks):
            return Answer(unread_as=name)
    is_over = any(mark in words for mark in OVER_MARKS) and not any(
        mark in words for mark in RATE_MARKS
    )
    if not is_over and (status in RETRIED_STATUSES or status == 200):
        wait_s = retry_after(response.headers.get("Retry-After", ""))
        raise FaultError(what, may_be_charged=False, wait_s=wait_s)
    if status in (400, 413, 422) and not is_over:
        raise RefusedError(f"{what}; None leaves a setting out")
    raise StopRunError(what)


def _answer_of(choice: Mapping[str, Any]) -> Answer:
    message, reason = choice["message"], choice.get("finish_reason")
    content = message.get("content") or ""
    if not isinstance(content, str):
        parts = [content] if isinstance(content, Mapping) else content
        content = "".join(p["text"] for p in parts if p.get("type", "text") in TEXT_PARTS)
    text = REASONING.sub("", content).strip()
    unread_as = REASONS.get(str(reason).casefold(), "unparsable" if text else "no_content")
    if message.get("refusal"):
        unread_as = "refused"
    elif message.get("tool_calls") or message.get("function_call"):
        unread_as = "tool_calls"
    return Answer(text, _alternatives(choice, content, text) if text else (), unread_as)


def _alternatives(choice: Mapping[str, Any], content: str, text: str) -> Alternatives:
    """Those of the first token that is part of the answer: after reasoning and empty lines."""
    begin, end = content.rfind(text), 0
    try:
        for token in choice["logprobs"]["content"]:
            end += len(token["token"])
            if token["token"].strip() and end > begin:
                found = token.get("top_logprobs") or [token]
                return [part for part in found if isinstance(part, dict)]
    except (KeyError, TypeError, AttributeError):
        pass
    return ()
