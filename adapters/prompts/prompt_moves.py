"""How a search makes one prompt out of others: another choice, other examples, two joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from zo_bilevel.adapters.prompts.prompt_template import PromptTemplate

Prompt: TypeAlias = tuple[tuple[str, Any], ...]
"""The choices of a template by name, as pairs."""


def changed(prompt: Prompt, name: str, value: Any) -> Prompt:  # noqa: ANN401 - a choice
    """The prompt with another choice."""
    return tuple((key, value if key == name else old) for key, old in prompt)


def child(
    template: PromptTemplate,
    best: Sequence[Prompt],
    known: Sequence[Prompt],
    rng: np.random.Generator,
) -> Prompt:
    """One of the best with another wording, other examples, or both of another one.

    Args:
        template: Whose choices they are.
        best: At least one.
        known: Prompts whose wordings may be taken.
        rng: Of everything drawn.
    """
    parent, other = (best[int(k)] for k in rng.integers(len(best), size=2))
    if template.num_shown and (rng.random() < 0.6 or not template.slots):
        return shown_anew(template, parent, rng)
    if len(best) > 1 and rng.random() < 0.5:
        names = {name for name, _ in parent if rng.random() < 0.5}
        joined = {name: dict(other)[name] if name in names else v for name, v in parent}
        return _packed(template, joined, [joined[place] for place in template.places])
    name = list(template.slots)[int(rng.integers(len(template.slots)))]
    wordings = [dict(p)[name] for p in known] or list(template.slots[name])
    return changed(parent, name, wordings[int(rng.integers(len(wordings)))])


def shown_anew(template: PromptTemplate, prompt: Prompt, rng: np.random.Generator) -> Prompt:
    """Show one more example, one less, another one, or the same in another order."""
    places, values = template.places, dict(prompt)
    shown = [values[name] for name in places if values[name] >= 0]
    move = int(rng.integers(4))
    fresh = int(rng.integers(len(template.examples)))
    if move == 0 and len(shown) < len(places) and fresh not in shown:
        shown.insert(int(rng.integers(len(shown) + 1)), fresh)
    elif move == 1 and shown:
        shown.pop(int(rng.integers(len(shown))))
    elif move == 2 and shown and fresh not in shown:
        shown[int(rng.integers(len(shown)))] = fresh
    else:
        rng.shuffle(shown)
    return _packed(template, values, shown)


def _packed(template: PromptTemplate, values: dict[str, Any], shown: Sequence[int]) -> Prompt:
    """A prompt that shows each of these examples once, then none."""
    places = template.places
    once = list(dict.fromkeys(k for k in shown if k >= 0))
    padded = [*once, *[-1] * (len(places) - len(once))]
    return tuple({**values, **dict(zip(places, padded, strict=True))}.items())
