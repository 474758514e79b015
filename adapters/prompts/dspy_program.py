"""Instructions and demonstrations of a DSPy program as meta-parameters: read, tuned, written."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.adapters.prompts.metrics import mean_loss
from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.solver_identity import content_hash
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.dispatch.base import WithCost
from zo_bilevel.support.errors import InputError, StopRunError, described
from zo_bilevel.support.packages import import_optional

NONE_SHOWN = -1
OVER_STATUSES = (401, 402, 403, 404)
OVER_ERRORS = ("LMAuthError", "LMBillingError", "LMNotConfiguredError", "LMUnsupportedModelError")
"""Of DSPy, where it has no status."""


@final
class DSPyProgram:
    """A DSPy program as an inner solver: theta is 1 - metric of each example.

    phi has for each predictor `NAME_instructions`, one of the wordings, and `NAME_demo_1` and so
    on, the number of an example of the training set that is shown, or -1 for none. It starts from
    the program's own instructions without demonstrations.

    Args:
        program: A `dspy.Module`; it is not changed.
        instructions: Further wordings, by name of the predictor; its own is always the first.
        examples: `dspy.Example`s with their inputs marked; they are tuned on, and shown.
        metric: `metric(example, prediction)`, as DSPy has it: the higher the better.
        num_demos: Examples that each predictor may show, >= 0. Their fields must be those of the
            predictor, or hold them.
        lm: A `dspy.LM` to run with; default the configured one.
        prices: From names of models, as DSPy has them, to the prices of a million tokens read and
            written: then a solve costs what the tokens of its answers cost, by the server's own
            count. What DSPy has in its cache costs nothing; a call without an answer is not known
            of. Without prices the cost of a run is told as 0, and a warning says that it is not
            known.

    Raises:
        InputError: If a price breaks its rule, a predictor is not there, or nothing is to tune.
        MissingPackageError: If dspy is not installed.
    """

    def __init__(
        self,
        program: Any,  # noqa: ANN401 - a dspy.Module
        instructions: Mapping[str, Sequence[str]],
        examples: Sequence[Any],
        metric: Callable[[Any, Any], float],
        *,
        num_demos: int = 0,
        lm: Any = None,  # noqa: ANN401 - a dspy.LM
        prices: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self._dspy = import_optional("dspy", "DSPyProgram", "dspy")
        self.original, self.examples, self.metric, self.lm = program, list(examples), metric, lm
        self.num_demos = num_demos
        models = prices or {}
        self._ledgers = {name: ChatLedger(name, models, 0, None) for name in models}
        self._has_warned = False
        own = {name: part.signature.instructions for name, part in program.named_predictors()}
        for name in instructions:
            if name not in own:
                raise InputError(f"the program has no predictor {name!r}, only {list(own)}")
        self.wordings = {
            name: tuple(dict.fromkeys([text, *instructions.get(name, ())]))
            for name, text in own.items()
        }
        if not self.examples or not (num_demos or any(len(w) > 1 for w in self.wordings.values())):
            raise InputError("a program needs examples, and other instructions or num_demos")
        facts = [json.dumps(program.dump_state(), sort_keys=True, default=str)]
        facts += [repr(self.wordings), repr([e.toDict() for e in self.examples]), str(num_demos)]
        facts += [content_hash(metric), str(getattr(lm, "model", ""))]
        digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
        self.name = f"DSPyProgram({type(program).__name__})#{digest}"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_dspy"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._dspy = import_optional("dspy", "DSPyProgram", "dspy")

    @property
    def start(self) -> dict[str, Any]:
        """The program's own instructions, without demonstrations."""
        chosen: dict[str, Any] = {}
        for name, wordings in self.wordings.items():
            if len(wordings) > 1:
                chosen[f"{_plain(name)}_instructions"] = wordings[0]
            chosen |= dict.fromkeys(self._places(name), NONE_SHOWN)
        return chosen

    def _places(self, name: str) -> list[str]:
        return [f"{_plain(name)}_demo_{k}" for k in range(1, self.num_demos + 1)]

    def space(self) -> Space:
        """A choice for each predictor with several wordings, and for each demonstration."""
        numbers = tuple(range(NONE_SHOWN, len(self.examples)))
        parameters: dict[str, Any] = {}
        for name, wordings in self.wordings.items():
            if len(wordings) > 1:
                parameters[f"{_plain(name)}_instructions"] = Choice(wordings)
            parameters |= {place: Choice(numbers) for place in self._places(name)}
        return Space(parameters)

    def problem(self) -> Problem:
        """Mean of 1 - metric over the choices."""
        return Problem(self.space(), self, mean_loss)

    def program(self, phi: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a dspy.Module
        """A copy of the program with these instructions and demonstrations.

        Its `save("FILE.json")` writes the state that `dspy.Module.load` reads.

        Args:
            phi: The choices.
        """
        program = self.original.deepcopy()
        for name, part in program.named_predictors():
            wording = phi.get(f"{_plain(name)}_instructions")
            if wording is not None:
                part.signature = part.signature.with_instructions(wording)
            places = dict.fromkeys(int(phi[place]) for place in self._places(name))
            shown = [self.examples[k] for k in places if k != NONE_SHOWN]
            part.demos = [*part.demos, *(self._dspy.Example(**e.toDict()) for e in shown)]
        return program

    def choices(self, program: Any) -> dict[str, Any]:  # noqa: ANN401 - a dspy.Module
        """The choices of a program that DSPy, or `program`, made: the other direction.

        Args:
            program: Of the same predictors.

        Raises:
            InputError: If an instruction or a demonstration is none of the choices.
        """
        known = {
            json.dumps(e.toDict(), sort_keys=True, default=str): k
            for k, e in enumerate(self.examples)
        }
        chosen = self.start
        for name, part in program.named_predictors():
            if part.signature.instructions not in self.wordings[name]:
                raise InputError(
                    f"the instructions of {name!r} are none of its wordings: "
                    f"{part.signature.instructions!r}; pass them in instructions"
                )
            if len(self.wordings[name]) > 1:
                chosen[f"{_plain(name)}_instructions"] = part.signature.instructions
            texts = [json.dumps(dict(demo), sort_keys=True, default=str) for demo in part.demos]
            if len(texts) > self.num_demos or not set(texts) <= set(known):
                raise InputError(
                    f"the {len(texts)} demonstrations of {name!r} must be at most {self.num_demos} "
                    "of the examples"
                )
            for place, text in zip(self._places(name), texts, strict=False):
                chosen[place] = known[text]
        return chosen

    def __call__(self, phi: Mapping[str, Any]) -> WithCost:
        """1 - metric of each example, and what the answers cost, which an error tells too.

        Raises:
            StopRunError: If the metric raises or gives no finite number, with the example, or the
                service would refuse every further call.
        """
        program = self.program(phi)
        given = {} if self.lm is None else {"lm": self.lm}
        with self._dspy.context(**given), self._dspy.track_usage() as tracker:
            tracker.__deepcopy__ = lambda _: tracker  # else DSPy's threads count in copies
            try:
                losses = [self._loss(program, place) for place in range(len(self.examples))]
            except Exception as error:
                error.cost = self._cost(tracker.usage_data)  # type: ignore[attr-defined]
                raise
        return WithCost(np.array(losses), self._cost(tracker.usage_data))

    def _loss(self, program: Any, place: int) -> float:  # noqa: ANN401 - a dspy.Module
        try:
            prediction = program(**self.examples[place].inputs())
        except Exception as error:
            if _ends_all(error):
                raise StopRunError(described(error)) from error
            raise
        try:
            loss = 1.0 - float(self.metric(self.examples[place], prediction))
        except Exception as error:
            raise StopRunError(
                f"the metric raised {described(error)} for example {place}"
            ) from error
        if not math.isfinite(loss):
            raise StopRunError(f"the metric gave {loss} for example {place}")
        return loss

    def _cost(self, usage: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
        """What answers cost by their tokens; 0, with a warning, where that is not known."""
        costs: list[float] = []
        for model, counts in usage.items():
            ledger = self._ledgers.get(model)
            if ledger is None:
                self._warn(model)
                continue
            tokens = [
                [int(c.get(f"{n}_tokens") or 0) for n in ("prompt", "completion")] for c in counts
            ]
            costs += [ledger.cost_of(read, written) for read, written in tokens]
        return math.fsum(costs)

    def _warn(self, model: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"what {model} costs is not known, and told as 0: give DSPyProgram prices="
                f"{{{model!r}: (per million tokens read, written)}}",
                stacklevel=2,
            )


def _ends_all(error: BaseException | None) -> bool:
    """Whether every further call would be refused: for its key, its money or its model."""
    while error is not None:
        status = getattr(error, "status", None) or getattr(error, "status_code", None)
        if status in OVER_STATUSES or type(error).__name__ in OVER_ERRORS:
            return True
        error = error.__cause__
    return False


def _plain(name: str) -> str:
    """The name of a predictor as one of a parameter."""
    return "".join(c if c.isalnum() else "_" for c in name)
