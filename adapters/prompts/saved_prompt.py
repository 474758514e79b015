"""A discrete prompt as plain text and a JSON card: written, read, used with any chat model."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.prompt_template import Message
from zo_bilevel.adapters.prompts.run_facts import RunFacts, run_facts
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.json_data import to_json

FORMAT = 1
CARD, PLAIN, PAGE, MESSAGES = "prompt.json", "prompt.txt", "prompt.md", "messages.json"
HOLE = "\0text\0"
"""Stands for the text while a template is filled; no text of a person holds it."""


@final
@dataclass(frozen=True, slots=True)
class SavedPrompt:
    """One concrete prompt.

    Args:
        parts: Role of each message and the pieces of its content, between which the text goes.
        card: What else is known: model, classes, scores, cost.
    """

    parts: tuple[tuple[str, tuple[str, ...]], ...]
    card: Mapping[str, Any]

    def messages(self, text: str) -> list[Message]:
        """What is sent for one text."""
        return [{"role": role, "content": text.join(pieces)} for role, pieces in self.parts]


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Refuse a folder that cannot be made, before anything is paid for.

    Raises:
        InputError: If there is a file, or the way to it leads through one.
    """
    path = Path(folder)
    there = next((p for p in (path, *path.parents) if p.exists()), path)
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "may not be written to" if there.is_dir() else "is a file"
        raise InputError(f"save must be a folder, or one that can be made: {str(there)!r} {what}")
    return path


def save_prompt(
    folder: str | os.PathLike[str],
    task: PromptTask,
    result: RunFacts,
    scores: Mapping[str, Any] | None = None,
) -> Path:
    """Write the prompt that was found.

    `prompt.txt` and `prompt.md` (with scores and cost) are to be read, `prompt.json` is for
    `load_prompt`, and `messages.json` holds the messages of an OpenAI request, with {text} open.

    Args:
        folder: Where; made when missing.
        task: The task it was found for.
        result: The run that found it.
        scores: Scores to note on the card, by name.

    Returns:
        The folder.
    """
    path = check_folder(folder)
    path.mkdir(parents=True, exist_ok=True)
    messages = task.template.messages(result.phi, HOLE)
    card = {
        "format": FORMAT,
        "url": task.chat.name,
        "model": task.chat.model,
        "options": task.chat.options,
        "classes": task.classes,
        "choices": result.phi,
        "messages": [[m["role"], m["content"].split(HOLE)] for m in messages],
        "scores": dict(scores or {}),
        "run": run_facts(result),
        "spent": task.chat.ledger.facts(),
        "judge_spent": task.judge.ledger.facts() if task.judge else None,
        "spent_with_earlier_runs": _in_all(task),
    }
    (path / CARD).write_text(to_json(card) + "\n", encoding="utf-8")
    (path / PLAIN).write_text(task.template.text(result.phi) + "\n", encoding="utf-8")
    sent = task.template.messages(result.phi, "{text}")
    (path / MESSAGES).write_text(json.dumps(sent, indent=2) + "\n", encoding="utf-8")
    (path / PAGE).write_text(_page(task, result, scores or {}), encoding="utf-8")
    return path


def _page(task: PromptTask, result: RunFacts, scores: Mapping[str, Any]) -> str:
    facts, ledgers = run_facts(result), _ledgers(task)
    calls = sum(ledger.spent.answers for ledger in ledgers)
    cost = math.fsum(ledger.spent.cost for ledger in ledgers)
    rows = [f"| {name.replace('_', ' ')} | {_score(value)} |" for name, value in scores.items()]
    shown = [
        f"| search | {facts['method']}, seed {facts['seed']}: {facts['stop_reason']} |",
        f"| paid for by this run | {calls} answers, {cost:.4g} |",
        f"| with earlier runs in its store | {_in_all(task):.4g} |",
    ]
    lines = [
        f"# Prompt for {task.chat.model}",
        "",
        f"```text\n{task.template.text(result.phi)}\n```",
    ]
    return "\n".join([*lines, "", "| what | value |", "|:--|:--|", *rows, *shown, ""])


def _ledgers(task: PromptTask) -> list[ChatLedger]:
    return list({id(chat.ledger): chat.ledger for chat in task.chats}.values())


def _in_all(task: PromptTask) -> float:
    return math.fsum({id(b): b.total for b in (k.bill for k in _ledgers(task))}.values())


def _score(value: Any) -> str:  # noqa: ANN401 - a number, or one with its interval
    if not isinstance(value, Mapping):
        return f"{value:.3f}" if isinstance(value, float) else str(value)
    found = {name: float(number) for name, number in value.items() if number is not None}
    middle = found.get("value", found.get("mean", math.nan))
    chance = f", p = {found['p_value']:.2g}" if "p_value" in found else ""
    return f"{middle:.3f} ({found['lower']:.3f} to {found['upper']:.3f}{chance})"


def load_prompt(folder: str | os.PathLike[str]) -> SavedPrompt:
    """Read what `save_prompt` wrote.

    Raises:
        InputError: If the card is missing or damaged.
    """
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']!r}")
        parts = tuple((str(role), _pieces(pieces)) for role, pieces in card["messages"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no saved prompt: {error}") from error
    return SavedPrompt(parts, card)


def _pieces(pieces: Sequence[Any]) -> tuple[str, ...]:
    if not pieces or not all(isinstance(piece, str) for piece in pieces):
        raise ValueError(f"pieces of a message must be texts, got {pieces!r}")
    return tuple(pieces)
