"""What `ChatAPI` refuses before the first call."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from zo_bilevel.support.errors import InputError

OWN_FIELDS = ("model", "messages", "stream", "seed", "temperature", "logprobs", "top_logprobs")


def request_options(
    own: Mapping[str, Any], logprobs: bool, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a request: those with an argument of their own unless `None`, and others.

    Raises:
        InputError: If the others hold one of the first, or are no JSON.
    """
    for name in extra:
        if name in (*OWN_FIELDS, *own):
            raise InputError(f"extra must not hold {name!r}: it has an argument of its own")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"extra must be JSON: {error}") from error
    asked = {"logprobs": True, "top_logprobs": 20} if logprobs else {}
    return {name: value for name, value in own.items() if value is not None} | asked | dict(extra)


def most_tokens(options: Mapping[str, Any]) -> int:
    """The most tokens that the answers to one request can have; 0 when nothing limits them.

    Example:
        >>> most_tokens({"max_tokens": 16, "n": 8, "thinking": {"budget_tokens": 100}})
        928
    """
    answers: list[int] = [
        options[name] for name in ("n", "best_of") if isinstance(options.get(name), int)
    ]
    return _token_limits(options) * max([1, *answers])


def _token_limits(options: Mapping[str, Any]) -> int:
    total = 0
    for name, value in options.items():
        if isinstance(value, Mapping):
            total += _token_limits(value)
        elif "tokens" in name and isinstance(value, int) and not isinstance(value, bool):
            total += value
    return total


def endpoint(url: str) -> str:
    """The address, which must not carry secrets: it is shown and stored.

    Raises:
        InputError: If it is none, or carries any.
    """
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError as error:
        raise InputError(f"url is no address: {error}") from None
    if not is_plain or parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            "url must be http(s)://host[:port]/path without a name, password or query: a key "
            "belongs in the environment"
        )
    return url.rstrip("/").removesuffix("/chat/completions")


def checked_classes(
    texts: Sequence[str], labels: Sequence[str], classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Names of the classes, after a look at the examples.

    Raises:
        InputError: If texts, labels and classes do not match.
    """
    if len(texts) != len(labels) or not len(texts):
        raise InputError(f"as many texts as labels are needed, got {len(texts)} and {len(labels)}")
    known = tuple(sorted(set(labels)) if classes is None else classes)
    if len(known) < 2 or len({name.casefold() for name in known}) < len(known):
        raise InputError(f"classes must be at least 2 different names, got {list(known)}")
    for label in labels:
        if label not in known:
            raise InputError(f"label {label!r} is none of the classes {list(known)}")
    return known


def check_counts(counts: Mapping[str, Any]) -> None:
    """Refuse counts below 1; retries may be 0; `InputError` with the name and the value."""
    for name, count in counts.items():
        least = 0 if name == "retries" else 1
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise InputError(f"{name} must be a whole number >= {least}, got {count!r}")


def check_limits(temperature: float, timeout_s: float, rate: float | None) -> None:
    """Refuse limits that break their rule; `InputError` with the name and the value."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InputError(f"temperature must be >= 0, got {temperature!r}")
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise InputError(f"timeout_s must be > 0, got {timeout_s!r}")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise InputError(f"requests_per_minute must be > 0, got {rate!r}")
