"""`zo-bilevel prompt FILE.toml`: a prompt of a chat model, judged on held-out examples."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.prompts.answer_form import answer_forms
from zo_bilevel.adapters.prompts.chat import Chat
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.adapters.prompts.found_prompt import FoundPrompt
from zo_bilevel.adapters.prompts.prompt_search import PromptSearch
from zo_bilevel.adapters.prompts.prompt_task import PromptTask
from zo_bilevel.adapters.prompts.prompt_template import Message, PromptTemplate
from zo_bilevel.adapters.prompts.proposer import Proposer
from zo_bilevel.cli.prompt_settings import (
    chat_of,
    metric_of,
    read_settings,
    texts_of,
    writer_settings,
)
from zo_bilevel.methods.base import Method
from zo_bilevel.run.lifecycle import INTERRUPTED
from zo_bilevel.run.loop import minimize
from zo_bilevel.support.errors import InnerSolverError, InputError, SolveError, StopRunError
from zo_bilevel.tasks.prompt_data import Texts
from zo_bilevel.tasks.scoring import PairedDifference, Score, paired_difference, score_values

PLAIN, START, FORM, BEST = "no prompt", "hand-written", "hand-written with form", "found"
MOST_HELD_OUT = 100
"""Held-out examples unless `--max-test` says else: their answers cost money too."""
CHARACTERS_A_TOKEN, TOKENS_A_MESSAGE = 4, 5
"""Of English, and around each message: to estimate what a run will cost."""


@final
@dataclass(frozen=True, slots=True)
class ServiceRow:
    """What one seed found.

    Args:
        seed: Of the split and of the search.
        found: The prompt.
        scores: Mean held-out score of no prompt, of the hand-written one, of that and the form of
            the answers, of what each baseline found with as many answers, and of the one found.
        gains: Each minus the hand-written one, on the same examples.
        unread: Share of the held-out answers under each that cannot be read.
        fault: Which prompts have no score, at which example, and why; empty where all have.
        is_over: Whether no further seed can be searched: a limit, or the service is gone.
        is_interrupted: Whether somebody ended it.
    """

    seed: int
    found: FoundPrompt
    scores: dict[str, Score]
    gains: dict[str, PairedDifference]
    unread: dict[str, float]
    fault: str = ""
    is_over: bool = False
    is_interrupted: bool = False


@final
class ServiceBench:
    """One file of settings: its data, model and searches.

    Args:
        path: The TOML file; data are looked for beside it.
        options: Those of the command line.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.path, self.options, self.settings = path, options, read_settings(path)
        columns = {name: options[name] for name in ("text_column", "label_column")}
        self.texts = texts_of(path, self.settings["data"], columns)
        self.chat = chat_of(self.settings["model"])
        self.metric = metric_of(self.settings, self.chat)
        self._writer: Chat | None = None
        if "proposer" in self.settings:
            other = self.settings["proposer"].get("model")
            is_here = not other and "local" in self.settings["model"]  # loaded once, greedy
            own = other or writer_settings(self.settings["model"])
            self._writer = self.chat if is_here else chat_of(own)

    def split(self, seed: int) -> tuple[Texts, Texts]:
        """The examples of a seed, and those that are held out."""
        rows = np.random.default_rng([seed, 0]).permutation(len(self.texts)).tolist()
        count = self.settings.get("examples", min(40, len(rows) // 2))
        if count < 1:
            raise InputError(f"{self.path}: examples must be >= 1, got {count}")
        held_out = rows[count:][: self.options["max_test"] or MOST_HELD_OUT]
        if not held_out:
            raise InputError(f"examples={count} of {len(rows)} rows leaves none to hold out")
        return self.texts.take(rows[:count]), self.texts.take(held_out)

    def searches(self, seed: int) -> tuple[PromptTask, PromptSearch, Texts]:
        """The task and the search of a seed, and what is held out."""
        train, held_out = self.split(seed)
        pairs = list(zip(train.texts, train.labels, strict=True))
        given = dict(self.settings["template"])
        user, count = given.pop("user", "{text}"), given.get("num_shown", 0)
        template = PromptTemplate(
            user,
            slots=self.settings.get("slots", {}),
            examples=pairs if count else (),
            as_turns=bool(count) and "{examples}" not in user + given.get("system", ""),
            **given,
        )
        known = self.texts.classes if self.metric is None else None
        task = PromptTask(
            self.chat, template, train.texts, train.labels, self.metric, classes=known
        )
        task.try_metric(held_out.texts, held_out.labels)
        proposer = None
        if self._writer is not None:
            proposer = Proposer(self._writer, self.settings["proposer"].get("about", ""))
        share = self.options["validation"] or self.settings.get("validation", 0.4)
        given = {name: self.settings.get(name, 0) for name in ("folds", "length_price")}
        if self.options["folds"] is not None:
            given["folds"] = self.options["folds"]
        search = PromptSearch(task, proposer, validation=share, **given)
        return task, search, held_out

    def run(self, seed: int) -> tuple[PromptTask, ServiceRow]:
        """Search, and judge on held-out examples; nothing is asked before all is checked."""
        task, search, held_out = self.searches(seed)
        store = self.options["store"]
        found = search.run(**self._limits(), seed=seed, store=store)
        plain, baselines = self._plain_prompts(task, search), self.options["baselines"]
        names = [*plain, *baselines, BEST]
        values, unread = {}, {}
        faults = ["the search was interrupted"] * (found.stop_reason == INTERRUPTED)
        is_interrupted = is_over = bool(faults)
        order = sorted(names, key=lambda name: (name != BEST, name != START))
        for name in order[: 0 if is_over else None]:  # first what matters most: limits may end it
            phi = plain.get(name, found.phi)
            try:
                if name in baselines:
                    phi = self._baseline(task, baselines[name], found, seed)
                answers = self.chat.ask_all(_conversations(task, phi, held_out), seed=0)
                scored = task.scores(held_out.texts, held_out.labels, answers)
            except (SolveError, KeyboardInterrupt) as error:  # what was searched for is there, paid
                faults.append(_unscored(name, held_out, error))
                is_interrupted = isinstance(error, KeyboardInterrupt)
                if is_over := is_interrupted or isinstance(error, StopRunError):
                    break
                continue
            values[name], unread[name] = scored[0], scored[2]
        values = {name: values[name] for name in names if name in values}
        scores = {name: score_values(value) for name, value in values.items()}
        base = values.get(START)
        pairs = {} if base is None else {name: (value, base) for name, value in values.items()}
        gains = {name: paired_difference(*pair) for name, pair in pairs.items()}
        fault = "; ".join(faults)
        return task, ServiceRow(seed, found, scores, gains, unread, fault, is_over, is_interrupted)

    def _limits(self) -> dict[str, Any]:
        limits = {name: self.settings.get(name) for name in ("max_cost", "max_answers")}
        if self.options["max_calls_given"]:
            limits["max_answers"] = self.options["max_calls"]
        if limits["max_cost"] is None and limits["max_answers"] is None:
            raise InputError(
                f"a search needs max_cost or max_answers: set one in {self.path}, or --max-calls"
            )
        if limits["max_cost"] is not None and self.chat.ledger.price == (0.0, 0.0):
            raise InputError(f"{self.path}: max_cost needs price = [read, written] in [model]")
        return limits

    def _plain_prompts(
        self, task: PromptTask, search: PromptSearch
    ) -> dict[str, dict[str, Any] | None]:
        """Those that nobody has to search for; `None` is none."""
        start = task.template.start
        if not search.slot:
            return {PLAIN: None, START: start}
        wording = f"{start[search.slot]} {answer_forms(task.references, task.classes)[0]}".strip()
        return {PLAIN: None, START: start, FORM: {**start, search.slot: wording}}

    def estimate(self, seeds: Sequence[int]) -> str:
        """How many answers a run will ask for, and about what they will cost."""
        task, search, held_out = self.searches(seeds[0])
        limits, count = self._limits(), len(held_out)
        phis = [*self._plain_prompts(task, search).values(), task.template.start]
        rows = [_conversations(task, phi, held_out) for phi in phis]
        again = 1 + len(self.options["baselines"])
        asked = count * (len(rows) + again - 1)
        cost = math.fsum(map(self._price, rows)) + (again - 1) * self._price(rows[-1])
        money, answers = limits["max_cost"], limits["max_answers"]
        search_cost = self._price(rows[-1]) / count * (answers or 0) if money is None else money
        allowed = [f"{answers} answers"] if answers else []
        words = " and ".join(allowed if money is None else [*allowed, f"{money:g}"])
        times = f", as much for each of {again - 1} methods compared" if again > 1 else ""
        more = ", each judged by a model" if task.judge else ""
        total = len(seeds) * (again * search_cost + cost)
        return (
            f"Estimate: for {'each of ' * (len(seeds) > 1)}{len(seeds)} seed"
            f"{'s'[: len(seeds) - 1]}, a search within {words}{times}, and {asked} answers to "
            f"held-out examples{more}. "
            + (f"About {total:.2g} in all." if total else "There are no prices.")
        )

    def _price(self, conversations: Sequence[Sequence[Message]]) -> float:
        """About what answers cost, by their letters."""
        sent = [message for messages in conversations for message in messages]
        read = sum(len(message["content"]) for message in sent) // CHARACTERS_A_TOKEN
        written = len(conversations) * self.chat.ledger.max_tokens
        return self.chat.ledger.cost_of(read + TOKENS_A_MESSAGE * len(sent), written)

    def run_all(self, seeds: Iterable[int]) -> tuple[list[tuple[PromptTask, ServiceRow]], str]:
        """Seed after seed, until a limit or the service ends it.

        Returns:
            What was found, and why not all of it was.

        Raises:
            SolveError: If not even the first search came to its end.
            KeyboardInterrupt: If it was interrupted before any prompt was raced.
        """
        rows: list[tuple[PromptTask, ServiceRow]] = []
        for seed in seeds:
            try:
                rows.append(self.run(seed))
            except SolveError as error:
                if not rows:
                    raise
                return rows, f"seed {seed} was not searched: {error}"
            except KeyboardInterrupt:
                if not rows:
                    raise
                last = dataclasses.replace(rows[-1][1], is_interrupted=True)
                return [*rows[:-1], (rows[-1][0], last)], f"seed {seed} was interrupted"
            if rows[-1][1].is_over:
                break
        faults = [f"seed {row.seed}: {row.fault}" for _, row in rows if row.fault]
        return rows, f"not scored on held-out examples: {'; '.join(faults)}" if faults else ""

    def _baseline(
        self, task: PromptTask, method: Method, found: FoundPrompt, seed: int
    ) -> dict[str, Any]:
        """What a method finds with as many answers, each prompt tried on all examples."""
        count = max(1, found.answers // len(task.texts))
        try:
            result = minimize(
                task.problem(),
                method,
                initial=task.template.start,
                max_solves=count,
                seed=seed,
                store=self.options["store"],
            )
        except InnerSolverError:  # no prompt that it tried gave an answer that can be read
            return task.template.start
        if result.stop_reason == INTERRUPTED:
            raise KeyboardInterrupt
        return dict(result.phi)

    def bills(self, task: PromptTask) -> dict[str, ChatLedger]:
        """Who was paid: the model, and a judge and a writer of wordings of their own."""
        whose = {"model": self.chat, "judge": task.judge, "proposer": self._writer}
        found: dict[str, ChatLedger] = {}
        for name, chat in whose.items():
            if chat is not None and chat.ledger not in found.values():
                found[name] = chat.ledger
        return found


def _unscored(name: str, texts: Texts, error: BaseException) -> str:
    """Which prompt, at which example where that is known, and why."""
    if isinstance(error, KeyboardInterrupt):
        return f"{name!r}: interrupted"
    place = getattr(error, "place", None)
    where = "" if place is None else f" at example {place} ({texts.texts[place][:60]!r})"
    return f"{name!r}{where}: {error}"


def _conversations(
    task: PromptTask, phi: Mapping[str, Any] | None, texts: Texts
) -> list[list[Message]]:
    template = PromptTemplate("{text}") if phi is None else task.template
    return [template.messages(phi or {}, text) for text in texts.texts]
