"""What right answers look like, in words that can stand behind an instruction."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from zo_bilevel.adapters.prompts.metrics import as_text

MOST_CLASSES = 12
"""Different answers that are all named, where each occurs twice in the mean."""
LONGEST_SHOWN = 80
"""Characters of an answer that is shown as it stands."""
KINDS: dict[type, str] = {bool: "true or false", int: "number", float: "number", str: "text"}


def answer_forms(references: Sequence[Any], classes: Sequence[str] = ()) -> list[str]:
    """Sentences that say in what form the answer is to be written, the one that says most first.

    Args:
        references: Right answers.
        classes: Names that they are of, those that do not occur included.

    Returns:
        At least one; the last is an example, but for classes.

    Example:
        >>> answer_forms(["1848", "1901"])
        ['Write only a number of 4 digits.', 'Write it exactly like this: 1848']
        >>> answer_forms(["no", "yes", "no", "no"])[0]
        'Write only one of these: no, yes.'
        >>> answer_forms(['{"name": "Ada", "count": 3}'])[0]
        'Write only a JSON object with the keys "name" (text), "count" (number).'
    """
    texts = [as_text(answer).strip() for answer in [*classes] * 2 or references]
    distinct = sorted(set(texts))
    found = []
    if len(distinct) <= min(MOST_CLASSES, len(texts) // 2):
        return [f"Write only one of these: {', '.join(distinct)}."]
    if keys := _keys(texts):
        found.append(f"Write only a JSON object with the keys {keys}.")
    elif all(re.fullmatch(r"-?\d+([.,]\d+)*", text) for text in texts):
        sizes = {len(text) if text.isdecimal() else 0 for text in texts}
        digits = f" of {max(sizes)} digits" if len(sizes) == 1 and max(sizes) > 1 else ""
        found.append(f"Write only a number{digits}.")
    elif (
        len({len(text.split()) for text in texts}) == 1
        and "".join(texts).replace(" ", "").isalpha()
    ):
        count = len(texts[0].split())
        found.append(f"Write only {count} word{'s'[: count - 1]}.")
    return [*found, f"Write it exactly like this: {min(texts, key=len)[:LONGEST_SHOWN]}"]


def _keys(texts: Sequence[str]) -> str:
    """The keys that JSON objects share, with their kinds; empty where they are none."""
    try:
        rows: list[Any] = [json.loads(text) for text in texts]
    except ValueError:
        return ""
    if not all(isinstance(row, dict) and list(row) == list(rows[0]) for row in rows):
        return ""
    return ", ".join(
        f'"{name}" ({KINDS.get(type(value), "JSON")})' for name, value in rows[0].items()
    )
