"""Three small sets for prompts that generate: a year, a sum in a format, JSON.

Each is made here from parts, so that there are as many different examples as one asks for.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.adapters.prompts.metrics import exact_match, json_match
from zo_bilevel.support.errors import InputError, unknown_name_message

Row: TypeAlias = tuple[str, str]
PLACES = ("bridge", "mill", "library", "harbour", "station", "theatre", "tower", "school")
NAMES = ("Ada", "Omar", "Ines", "Tom", "Mei", "Lena", "Raj", "Zoe")
GOODS = ("apples", "lamps", "chairs", "books", "shirts", "pens", "plates", "keys")
SENTENCES = (
    "The {place} of {town} is {size} m long and opened in {year} after {cost} months of work.",
    "In {year}, {size} people worked at the {place} of {town}; today they are {cost}.",
    "The {place} of {town} cost {size} million, {cost} of which were paid before {year}.",
    "{town} sold its {place} in {year} for {size} thousand to {cost} owners.",
)
TOWNS = ("Elmford", "Norwick", "Salby", "Tarn", "Weston", "Kirkdale")
ORDERS = (
    "{name} wants {count} {goods}.",
    "Please send {count} {goods} to {name}.",
    "{count} {goods} were ordered by {name} today.",
)


@final
@dataclass(frozen=True, slots=True)
class GenerationSet:
    """Texts, what a model should answer to each, and how answers are scored.

    Args:
        rows: Pairs of a text and its reference.
        metric: From an answer and its reference to a score.
        ask: A plain instruction to begin with.
    """

    rows: tuple[Row, ...]
    metric: Callable[[str, Any], float]
    ask: str


def _year(rng: np.random.Generator) -> Row:
    year = str(int(rng.integers(1750, 2020)))
    sentence = SENTENCES[rng.integers(len(SENTENCES))]
    size, cost = (int(rng.integers(21, 700)) for _ in range(2))
    place, town = PLACES[rng.integers(len(PLACES))], TOWNS[rng.integers(len(TOWNS))]
    return sentence.format(place=place, town=town, size=size, cost=cost, year=year), year


def _sum(rng: np.random.Generator) -> Row:
    a, b = int(rng.integers(2, 20)), int(rng.integers(2, 10))
    return f"{a} + {b}", f"{a} + {b} = {a + b}"


def _order(rng: np.random.Generator) -> Row:
    name, goods = NAMES[rng.integers(len(NAMES))], GOODS[rng.integers(len(GOODS))]
    count = int(rng.integers(2, 60))
    text = ORDERS[rng.integers(len(ORDERS))].format(name=name, count=count, goods=goods)
    return text, json.dumps({"name": name, "item": goods, "count": count})


SETS: dict[str, tuple[Callable[[np.random.Generator], Row], Any, str]] = {
    "year": (_year, exact_match, "Which year does the text name?"),
    "sum": (_sum, exact_match, "Write the sum as an equation."),
    "json": (_order, json_match, "Write the order as JSON with name, item and count."),
}


def generation_set(name: str, size: int, seed: int = 0) -> GenerationSet:
    """Make one of the sets; `InputError` if there is no such set.

    Args:
        name: "year" (the year that a sentence with three numbers names), "sum" (of two numbers,
            as "11 + 9 = 20" and no more), or "json" (an order as JSON with name, item and count).
        size: How many different examples, >= 1.
        seed: Of the examples.

    Example:
        >>> text, reference = generation_set("sum", 2).rows[0]
        >>> reference.startswith(f"{text} = ")
        True
    """
    if name not in SETS:
        raise InputError(unknown_name_message("generation set", name, SETS))
    make, metric, ask = SETS[name]
    rng = np.random.default_rng([seed, len(name)])
    rows: dict[str, str] = {}
    while len(rows) < size:
        text, reference = make(rng)
        rows.setdefault(text, reference)
    return GenerationSet(tuple(rows.items()), metric, ask)
