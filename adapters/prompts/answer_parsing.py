"""From what a chat model answers to one log-probability a class; what names none is counted."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

Parser: TypeAlias = Callable[[str], str | None]

UNNAMED_PROBABILITY = 0.02
"""Probability shared by the classes that an answer did not name: logits must be finite."""
LEAST_PROBABILITY = 1e-6
"""Least probability of a class whose log-probability the server did not give."""


def match_label(answer: str, classes: Sequence[str]) -> int | None:
    """The one class that an answer names, or `None`: nothing is guessed.

    An answer that is a class, but for case and punctuation around it, names it; else the classes
    that occur in it as whole words are looked at, and there must be exactly one. A class that is
    part of another one that occurs does not count.

    Example:
        >>> match_label("The topic is Time.", ["time", "text"])
        0
        >>> match_label("time or text", ["time", "text"]) is None
        True
    """
    plain = " ".join(answer.split()).casefold()
    folded = [" ".join(name.split()).casefold() for name in classes]
    bare = plain.strip(" \t.,:;!?\"'`*()[]{}<>")
    if bare in folded:
        return folded.index(bare)
    found = [
        k for k, name in enumerate(folded) if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", plain)
    ]
    longest = [
        k for k in found if not any(k != other and folded[k] in folded[other] for other in found)
    ]
    return longest[0] if len(longest) == 1 else None


def parsed(answer: str, classes: Sequence[str], parser: Parser | None) -> int | None:
    """The class an answer names, by the user's function or by matching.

    Raises:
        InputError: If the user's function returns neither a class nor `None`.
    """
    if parser is None:
        return match_label(answer, classes)
    name = parser(answer)
    if name is None:
        return None
    if name not in classes:
        raise InputError(f"parser must return one of {list(classes)} or None, got {name!r}")
    return list(classes).index(name)


def row_of_class(found: int | None, num_classes: int) -> FloatArray:
    """Log-probabilities of an answer that names one class, or none: then of the last column.

    Returns:
        Shape `(C + 1,)`; the last column is for answers that name no class.

    Example:
        >>> row_of_class(None, 2).argmax()
        np.int64(2)
    """
    row = np.full(num_classes + 1, math.log(UNNAMED_PROBABILITY / num_classes))
    row[num_classes if found is None else found] = math.log1p(-UNNAMED_PROBABILITY)
    return row


def row_of_logprobs(
    alternatives: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> FloatArray | None:
    """Log-probabilities of the classes from those of the first token of an answer.

    A token counts for the one class that begins with it; one that begins several, or none, counts
    for the last column.

    Returns:
        Shape `(C + 1,)`, or `None` when no token begins a class.

    Example:
        >>> tokens = [{"token": " ti", "logprob": -0.1}, {"token": "t", "logprob": -3.0}]
        >>> row_of_logprobs(tokens, ["time", "text"]).argmax()
        np.int64(0)
    """
    mass = np.zeros(len(classes) + 1)
    for alternative in alternatives:
        token, value = alternative.get("token"), alternative.get("logprob")
        if not isinstance(token, str) or not isinstance(value, int | float):
            continue
        start = token.strip().casefold()
        begun = [k for k, name in enumerate(classes) if start and name.casefold().startswith(start)]
        if len(begun) == 1:
            mass[begun[0]] += math.exp(min(float(value), 0.0))
    if not mass.any():
        return None
    mass = np.maximum(mass, LEAST_PROBABILITY)
    mass[-1] = max(1.0 - float(mass[:-1].sum()), LEAST_PROBABILITY)
    normalized: FloatArray = np.log(mass / mass.sum())
    return normalized
