"""A pipeline of several prompts as one prompt task: a Python function that asks a chat model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, final

from zo_bilevel.adapters.prompts.chat import SEEN, Chat
from zo_bilevel.adapters.prompts.chat_answer import Answer
from zo_bilevel.adapters.prompts.chat_model import ChatModel
from zo_bilevel.adapters.prompts.judge import Judge
from zo_bilevel.adapters.prompts.metrics import Metric, WholeSet
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.prompt_template import Message, PromptTemplate
from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.solver_identity import content_hash
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import InputError, SolveError, ZoBilevelError, described

Ask: TypeAlias = Callable[[str, str], str]
"""From the name of a template and a text to the model's answer."""
Pipeline: TypeAlias = Callable[[str, Ask], str]


@final
class ProgramTemplate(PromptTemplate):
    """The slots of several templates, named after theirs: "draft_ask" is `ask` of "draft".

    Args:
        templates: By name; none of them shows examples.

    Raises:
        InputError: If there is none, or one shows examples.
    """

    def __init__(self, templates: Mapping[str, PromptTemplate]) -> None:
        self.templates = dict(templates)
        for name, template in self.templates.items():
            if template.num_shown:
                raise InputError(f"template {name!r} of a program cannot show examples by choice")
        slots = {
            f"{name}_{slot}": wordings
            for name, template in self.templates.items()
            for slot, wordings in template.slots.items()
        }
        if not slots:
            raise InputError("the templates have no slots: there is nothing to tune")
        super().__init__("{text}" + "".join(f"{{{name}}}" for name in slots), slots=slots)

    def part(self, name: str, phi: Mapping[str, Any], text: str) -> list[Message]:
        """What one of the templates sends; `InputError` if there is no such template."""
        if name not in self.templates:
            raise InputError(f"the program asks for {name!r}, templates are {list(self.templates)}")
        template = self.templates[name]
        return template.messages({slot: phi[f"{name}_{slot}"] for slot in template.slots}, text)

    def space(self) -> Space:
        """One choice for each slot of each template."""
        return Space({name: Choice(wordings) for name, wordings in self.slots.items()})

    def text(self, phi: Mapping[str, Any]) -> str:
        """All prompts with `{text}` left open, for people to read."""
        parts = []
        for name in self.templates:
            sent = self.part(name, phi, "{text}")
            parts.append(f"({name})\n" + "\n".join(f"[{m['role']}]\n{m['content']}" for m in sent))
        return "\n\n".join(parts)

    def digest(self) -> str:
        """A hash of everything in the templates."""
        facts = [(name, template.digest()) for name, template in self.templates.items()]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@final
class PromptProgram(PromptTask):
    """A function with several prompts is one inner solver; `PromptSearch` takes it as it is.

    Args:
        chat: The model that is asked.
        pipeline: `pipeline(text, ask)` gives the answer for a text; `ask(name, text)` sends the
            template of that name and gives what the model answers. It must be the same for the
            same answers.
        templates: By name.
        texts: The examples to tune on.
        references: The right answer of each.
        metric: As `PromptTask` takes it; `None` for classes.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> ask = {"draft": PromptTemplate("{how} {text}", slots={"how": ["Sum up:", "Shorten:"]})}
        >>> ProgramTemplate(ask).space().names
        ('draft_how',)
    """

    is_one_prompt = False

    def __init__(
        self,
        chat: Chat,
        pipeline: Pipeline,
        templates: Mapping[str, PromptTemplate],
        texts: Sequence[str],
        references: Sequence[Any],
        metric: Metric | WholeSet | Judge | None = None,
    ) -> None:
        if not callable(pipeline):
            raise InputError(f"pipeline must be a function, got {type(pipeline).__name__}")
        self.pipeline, self.parts = pipeline, ProgramTemplate(templates)
        self.steps = len(self.parts.templates)
        super().__init__(chat, self.parts, texts, references, metric)

    def _name(self) -> str:
        return f"{super()._name()}-{content_hash(self.pipeline)[:8]}"

    def answers(
        self, phi: Mapping[str, Any], texts: Sequence[str], seed: int | None = None
    ) -> list[Answer]:
        """What the pipeline gives for each text; it, or an error, costs what all its calls cost.

        One that asked for an answer which is cut, refused or empty is counted as that.

        Raises:
            SolveError: If the pipeline raises or gives no text, with the example and the prompt.
        """
        width = self.chat.client.max_concurrent if isinstance(self.chat, ChatModel) else 1
        paid: list[float] = []

        def run(text: str) -> Answer:
            asked_for: list[Answer] = []

            def ask(name: str, asked: str) -> str:
                if not isinstance(asked, str):
                    raise TypeError(f"ask takes the name of a template and a text, got {asked!r}")
                answer = self.chat.ask_all([self.parts.part(name, phi, asked)], seed)[0]
                asked_for.append(answer)
                paid.append(answer.cost)
                return answer.text

            try:
                said = self.pipeline(text, ask)
                said = "" if said is None else said
                if not isinstance(said, str):
                    raise TypeError(f"a pipeline gives a text, got {said!r}")
            except ZoBilevelError:
                raise
            except Exception as error:
                place = (self.texts if text in self.texts else texts).index(text)
                where = f"for example {place} ({text[:80]!r}) under {dict(phi)}"
                raise SolveError(f"the pipeline raised {described(error)} {where}") from error
            faults = [a.unread_as for a in asked_for if a.unread_as != "unparsable"]
            return Answer(
                said,
                unread_as=faults[-1] if faults else "unparsable" if said else "no_content",
                cost=math.fsum(answer.cost for answer in asked_for),
                is_known=all(answer.is_known for answer in asked_for),
            )

        width = max(1, min(width, len(texts)))
        try:
            with ThreadPoolExecutor(width, initializer=SEEN.set, initargs=(SEEN.get(),)) as pool:
                return list(pool.map(run, texts))
        except Exception as error:
            error.cost = getattr(error, "cost", 0.0) + math.fsum(paid)  # type: ignore[attr-defined]
            raise
