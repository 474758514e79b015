"""A discrete prompt: a text with named slots, each slot a choice of wordings or of examples."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import InputError, unknown_name_message

Message: TypeAlias = dict[str, str]

TEXT, EXAMPLES = "text", "examples"


def refuse_unwritable(name: str, text: str) -> None:
    """Refuse half a character, which no file and no request can hold; `InputError` by name."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds {text[error.start]!a}, a lone surrogate, at {error.start}: {text[:80]!a}"
        ) from None


class PromptTemplate:
    r"""Messages for a chat model, with slots that are choices.

    The field `{text}` is the text to classify, `{examples}` the examples that are shown; every
    other field is a slot. A slot's wordings may hold any characters, braces too.

    Args:
        user: The user's message.
        system: The system's message, or empty for none.
        slots: The wordings of each slot, the first one hand-written; at least 2 unless a proposer
            writes more.
        examples: Pairs `(text, label)` that may be shown.
        num_shown: How many are shown, in an order that is chosen too.
        example: How one is written, with `{text}` and `{label}`.
        separator: Between two of them.
        as_turns: Show examples as earlier turns of the conversation, the text in the user's
            message and the label as the answer, instead of in `{examples}`.
        system_role: Role of the system's message ("developer" for some services).

    Raises:
        InputError: If a field has no slot, a slot no field, or there are too few examples.

    Example:
        >>> template = PromptTemplate("{ask}\n{text}", slots={"ask": ["Topic?", "What is it?"]})
        >>> template.messages({"ask": "Topic?"}, "Adds numbers.")
        [{'role': 'user', 'content': 'Topic?\nAdds numbers.'}]
        >>> template.space().names
        ('ask',)
    """

    def __init__(
        self,
        user: str,
        system: str = "",
        *,
        slots: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[tuple[str, str]] = (),
        num_shown: int = 0,
        example: str = "Text: {text}\nLabel: {label}",
        separator: str = "\n\n",
        as_turns: bool = False,
        system_role: str = "system",
    ) -> None:
        self.user, self.system = user, system
        for name, text in (("user", user), ("system", system), ("example", example)):
            if not isinstance(text, str):
                raise InputError(f"{name} must be a text, got {text!r}")
        for name, wordings in (slots or {}).items():
            if isinstance(wordings, str) or not isinstance(wordings, Sequence):
                raise InputError(f"slot {name!r} must be a list of texts, got {wordings!r}")
        self.slots = {name: tuple(wordings) for name, wordings in (slots or {}).items()}
        self.examples, self.num_shown = tuple(examples), num_shown
        self.example, self.separator = example, separator
        self.as_turns, self.system_role = as_turns, system_role
        self._check()

    def _check(self) -> None:
        fields = {*_fields("user", self.user), *_fields("system", self.system)}
        if TEXT not in _fields("user", self.user) and (self.as_turns or TEXT not in fields):
            raise InputError(f"the template must hold {{text}}, got {self.user!r}")
        self._check_slots(fields)
        if self.as_turns and EXAMPLES in fields:
            raise InputError("examples are shown as_turns or in {examples}, not both")
        if not self.as_turns and (EXAMPLES in fields) != (self.num_shown > 0):
            raise InputError(
                "the field {examples} and num_shown >= 1 go together, got "
                f"num_shown={self.num_shown} and the fields {sorted(fields)}"
            )
        if self.num_shown > 0 and len(self.examples) < max(2, self.num_shown):
            raise InputError(
                f"num_shown={self.num_shown} needs as many examples, at least 2, "
                f"got {len(self.examples)}"
            )
        if self.num_shown and set(_fields("example", self.example)) != {"text", "label"}:
            raise InputError(f"example must hold {{text}} and {{label}}, got {self.example!r}")

    def _check_slots(self, fields: set[str]) -> None:
        reserved = {TEXT, EXAMPLES}
        for name in sorted(fields - reserved - set(self.slots)):
            raise InputError("template: " + unknown_name_message("slot", name, self.slots))
        for name, wordings in self.slots.items():
            if name in reserved or name not in fields or name in self.places:
                raise InputError(f"slot {name!r} is no field of the template, or a reserved one")
            if not wordings or not all(isinstance(w, str) for w in wordings):
                raise InputError(f"slot {name!r} must have texts, got {wordings!r}")
            for place, wording in enumerate(wordings):
                refuse_unwritable(f"slot {name!r}", wording)
                if wording in wordings[:place]:
                    raise InputError(f"slot {name!r} has {wording!r} twice")

    def space(self) -> Space:
        """One choice for each slot, and one for each place of an example.

        Raises:
            InputError: If nothing is to be chosen, in the template or in a slot.
        """
        for name, wordings in self.slots.items():
            if len(wordings) < 2:
                raise InputError(
                    f"slot {name!r} must have at least 2 texts, got {list(wordings)}; only "
                    "PromptSearch with a proposer begins with one"
                )
        parameters = {name: Choice(wordings) for name, wordings in self.slots.items()}
        places = range(len(self.examples))
        for name in self.places:
            parameters[name] = Choice(tuple(places))
        if not parameters:
            raise InputError("the template has no slots: there is nothing to tune")
        return Space(parameters)

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the choices of examples, in the order they are shown."""
        return tuple(f"shown_{k}" for k in range(1, self.num_shown + 1))

    @property
    def start(self) -> dict[str, Any]:
        """The hand-written prompt: the first wording of each slot, the first examples."""
        chosen: dict[str, Any] = {name: wordings[0] for name, wordings in self.slots.items()}
        return {**chosen, **{name: k for k, name in enumerate(self.places)}}

    def messages(self, phi: Mapping[str, Any], text: str) -> list[Message]:
        """What is sent for one text.

        Args:
            phi: The wording of each slot and the number of each example shown. One that is shown
                already, or is the text itself, is left out; -1 shows none.
            text: The text to classify.
        """
        values = {name: str(phi[name]) for name in self.slots}
        pairs = self._shown(phi, text)
        values[EXAMPLES] = self.separator.join(
            _filled(self.example, {"text": shown, "label": label}) for shown, label in pairs
        )
        turns = [(self.system_role, self.system, text)]
        for shown, label in pairs if self.as_turns else ():
            turns += [("user", self.user, shown), ("assistant", "{label}", label)]
        turns.append(("user", self.user, text))
        return [
            {"role": role, "content": _filled(content, {**values, TEXT: own, "label": own})}
            for role, content, own in turns
            if content
        ]

    def _shown(self, phi: Mapping[str, Any], text: str) -> list[tuple[str, str]]:
        chosen = dict.fromkeys(int(phi[name]) for name in self.places)
        return [self.examples[k] for k in chosen if k >= 0 and self.examples[k][0] != text]

    def text(self, phi: Mapping[str, Any]) -> str:
        """The concrete prompt with `{text}` left open, for people to read."""
        parts = [f"[{m['role']}]\n{m['content']}" for m in self.messages(phi, "{text}")]
        return "\n\n".join(parts)

    def digest(self) -> str:
        """A hash of everything in the template."""
        facts = [
            [self.user, self.system, list(self.slots.items())],
            [self.examples, self.num_shown, self.example, self.separator],
            [self.as_turns, self.system_role],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        sizes = {name: len(wordings) for name, wordings in self.slots.items()}
        return f"PromptTemplate(slots={sizes}, num_shown={self.num_shown}, #{self.digest()})"


def _fields(name: str, text: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InputError(f"{name} is no template: {error} in {text!r}") from error
    fields = []
    for _, field, layout, conversion in parts:
        if field is None:
            continue
        if not field.isidentifier() or layout or conversion:
            raise InputError(f"{name} must hold plain fields such as {{text}}, got {{{field}}}")
        fields.append(field)
    return fields


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Fill each field once: values are never read as templates themselves."""
    parts = []
    for literal, field, _, _ in string.Formatter().parse(text):
        parts += [literal, "" if field is None else values[field]]
    return "".join(parts)
