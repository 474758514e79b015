"""What `ChatAPI` refuses before the first call."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from zo_bilevel.adapters.prompts.metrics import PatternMatch, WholeSet, as_text, grade
from zo_bilevel.adapters.prompts.prompt_template import refuse_unwritable
from zo_bilevel.support.errors import InputError, StopRunError

LEAST_GAP = 1e-9
"""Below 1 by more than rounding."""
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


def checked_examples(texts: Sequence[str], references: Sequence[Any]) -> None:
    """Refuse texts that are none, or not as many as right answers, and warn where these differ."""
    if isinstance(texts, str):
        raise InputError(f"texts must be a list of texts, got {texts!r}")
    if len(texts) != len(references) or not len(texts):
        counts = f"{len(texts)} and {len(references)}"
        raise InputError(f"as many texts as references are needed, got {counts}")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts must be strings, the one at {place} is {text!r}")
        refuse_unwritable(f"the text at {place}", text)
        if isinstance(references[place], str):
            refuse_unwritable(f"the right answer at {place}", references[place])
    if conflict := conflict_of(texts, references):
        warnings.warn(conflict, stacklevel=4)


def conflict_of(texts: Sequence[str], references: Sequence[Any]) -> str:
    """Which text has two right answers, in words; empty where none has.

    Example:
        >>> conflict_of(["a", "b", "a"], ["x", "x", "y"])
        "1 text has more than one right answer: 'a' has 'x' and 'y'"
    """
    known: dict[str, list[Any]] = {}
    for text, right in zip(texts, references, strict=True):
        if right not in (found := known.setdefault(text, [])):
            found.append(right)
    torn = [(text, found) for text, found in known.items() if len(found) > 1]
    if not torn:
        return ""
    text, (one, other, *_) = torn[0]
    many = "s have" if len(torn) > 1 else " has"
    first = f"{text[:80]!r} has {one!r} and {other!r}"
    return f"{len(torn)} text{many} more than one right answer: {first}"


def checked_classes(labels: Sequence[str], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes; `InputError` if labels and classes do not match."""
    for label in (*labels, *(classes or ())):
        if not isinstance(label, str):
            raise InputError(f"classes must be texts, as the model writes them, got {label!r}")
    known = tuple(sorted(set(labels)) if classes is None else classes)
    if len(known) < 2 or len({name.casefold() for name in known}) < len(known):
        raise InputError(f"classes must be at least 2 different names, got {list(known)}")
    for label in labels:
        if label not in known:
            raise InputError(f"label {label!r} is none of the classes {list(known)}")
    return known


def check_right_answers(metric: Any, texts: Sequence[str], references: Sequence[Any]) -> None:  # noqa: ANN401
    """Try a metric on the right answers, and warn where one scores below 1.

    Raises:
        InputError: If the metric cannot score one, or one is NaN.
    """
    for text, right in zip(texts, references, strict=True):
        if isinstance(right, float) and math.isnan(right):
            raise InputError(f"the right answer of {text[:80]!r} must not be NaN")
    if hasattr(metric, "judge"):  # whose answers cost money
        return
    try:
        scores, _ = grade(metric, texts, [as_text(r) for r in references], references)
    except StopRunError as error:
        raise InputError(f"a right answer must have a score: {error}") from error
    low = np.flatnonzero(scores < 1.0 - LEAST_GAP)
    if len(low) and not isinstance(metric, PatternMatch):  # which may want more around it
        first, count = low[0], f" itself ({len(low)} of {len(scores)} score below 1)"
        which = f" {as_text(references[first])[:80]!r}{count}"
        warnings.warn(
            f"the metric gives {scores[first]:.3g}, not 1, to the right answer"
            f"{'s' if isinstance(metric, WholeSet) else which}: mend it, unless that is meant",
            stacklevel=5,
        )
