"""Tune a soft prompt and keep one that held-out shots agree with: a validation share, or folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from zo_bilevel.adapters.prompts.frozen_transformer import FrozenTransformer
from zo_bilevel.adapters.prompts.prompt_folds import Path, best_length, folded
from zo_bilevel.adapters.prompts.prompt_selection import Phi, Record, Selection
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError


class Ended(Protocol):
    """What `zb.minimize` returns."""

    @property
    def stop_reason(self) -> str:
        """Why the run stopped; "interrupted" by Ctrl-C."""


Tune: TypeAlias = Callable[[FrozenTransformer, int, Callable[[Record], None]], Ended]
Examples: TypeAlias = tuple[Sequence[str], Sequence[str]]


def tuned_prompt(
    solver: FrozenTransformer,
    tune: Tune,
    calls: int,
    *,
    validation: Examples | None = None,
    folds: int = 0,
) -> Phi | None:
    """Tune a soft prompt, and keep what examples that it was not tuned on agree with.

    With a validation share the best prompt on the way is kept, those part of the way from the
    hand-written one included. With folds, runs without each part of the examples choose how long
    the run on all is and how far it goes back; each run has its share of the calls.

    Args:
        solver: The examples to tune on.
        tune: `tune(solver, calls, callback)` runs a method: `zb.minimize(solver.problem(), method,
            max_solves=calls, callback=callback)`, for instance.
        calls: Prompts that may be tried in all, >= 1.
        validation: Texts that only choose what is kept, and their labels.
        folds: Parts for cross-validation, each with an example of every class; 0 for none.

    Returns:
        The prompt as `solver.prompted` takes it; `None` for the hand-written one.

    Raises:
        InputError: If validation and folds are both given, there are fewer examples of a class
            than folds, or fewer calls.

    Example:
        >>> import zo_bilevel as zb
        >>> def tune(solver, calls, callback):
        ...     return zb.minimize(solver.problem(), max_solves=calls, callback=callback, seed=0)
        >>> tuned_prompt(None, tune, 100, validation=(["a"], ["x"]), folds=2)
        Traceback (most recent call last):
        zo_bilevel.support.errors.InputError: give validation or folds: each part is such a share
    """
    calls = whole_number("calls", calls, least=1)
    folds = whole_number("folds", folds, least=0)
    if not folds:
        judge = None if validation is None else judge_of(solver, *validation)
        selection = Selection(judge, calls)
        tune(solver, calls, selection.see)
        return selection.best()[1]
    if validation is not None:
        raise InputError("give validation or folds: each part is such a share")
    parts = folded(solver.given[1], folds)
    share = calls // (folds + 1)
    if not share:
        raise InputError(f"calls must be > folds, got {calls} for {folds}")
    paths, judges = [], []
    for others, own in parts:
        part = solver.part(others)
        paths.append(Path())
        judges.append(judge_of(part, *solver.taken(own)))
        if tune(part, share, paths[-1].see).stop_reason == "interrupted":
            return None
    length, back = best_length(paths, judges, share)
    path = Path()
    if length:
        tune(solver, length, path.see)
    return path.after(length, back)


def judge_of(
    solver: FrozenTransformer, texts: Sequence[str], labels: Sequence[str]
) -> Callable[[Phi | None], float]:
    """Cross-entropy of texts under a prompt of a solver."""
    outer = CrossEntropy([solver.classes.index(label) for label in labels])

    def judge(phi: Phi | None) -> float:
        logits: Any = solver.prompted(phi).logits(texts)
        return float(outer.loss(np.asarray(logits, dtype=np.float64).ravel()))

    return judge
