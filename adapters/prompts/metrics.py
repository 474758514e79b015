"""Metrics of free text: from an answer and its reference to a score, the higher the better."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, StopRunError, described
from zo_bilevel.support.packages import import_optional

Metric: TypeAlias = Callable[[str, Any], float]
SIGN, WHOLE = r"(?:(?<![\w%)])[-+])?", r"(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)"
NUMBER = re.compile(rf"{SIGN}(?:{WHOLE}(?:\.\d+)?(?:[eE][-+]?\d+)?|(?<!\d)\.\d+)")
"""A sign behind a letter, digit, percent sign or bracket is none; commas may part thousands."""
ROUNDING = 1e-9
"""How far apart, relatively, numbers may be that are not both whole."""
MINUS = "\N{MINUS SIGN}"
FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


def exact_match(answer: str, reference: Any) -> float:  # noqa: ANN401 - any reference
    r"""1 where the answer is the reference, but for case and white space.

    Example:
        >>> exact_match(" Paris\n", "paris"), exact_match("Paris, France", "Paris")
        (1.0, 0.0)
    """
    return float(" ".join(answer.split()).casefold() == " ".join(str(reference).split()).casefold())


@final
@dataclass(frozen=True, slots=True)
class NumberMatch:
    """1 where the last number of an answer is the reference.

    In "10-20" and "2019-05-07" the last numbers are 20 and 7; "1,234" is one number, "1,2" are two.

    Args:
        tolerance: How far off it may be, relative to the reference, >= 0; default none for whole
            numbers, and rounding (1e-9) for others.
        is_only: Whether it must be the only number of the answer.

    Example:
        >>> NumberMatch()("12 + 7 = 19.", 19), NumberMatch()("about 20", "19")
        (1.0, 0.0)
    """

    tolerance: float | None = None
    is_only: bool = False

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            finite_number("tolerance", self.tolerance, ">= 0")

    def __call__(self, answer: str, reference: Any) -> float:  # noqa: ANN401 - number or text
        """Score one answer."""
        truth = _number(str(reference))  # first: a reference that is none is told
        if not truth.is_finite():
            raise ValueError(f"the reference must be a finite number, got {reference!r}")
        texts = NUMBER.findall(answer.replace(MINUS, "-"))
        if not texts or (self.is_only and len(texts) > 1):
            return 0.0
        found = _number(texts[-1])
        if self.tolerance is None and all(n == n.to_integral_value() for n in (found, truth)):
            return float(found == truth)
        near = ROUNDING if self.tolerance is None else self.tolerance
        return float(math.isclose(found, truth, rel_tol=near, abs_tol=1e-12))


def _number(text: str) -> Decimal:
    """All its digits; `ValueError` if it is none."""
    plain = text.replace(",", "").replace(MINUS, "-").strip()
    float(plain)
    return Decimal(plain)


@final
@dataclass(frozen=True, slots=True)
class PatternMatch:
    r"""1 where the whole answer matches a regular expression; a group in it must be the reference.

    Args:
        pattern: The expression; its first group, where it has one, is compared.

    Example:
        >>> PatternMatch(r"#### (\d+)")("#### 19", "19"), PatternMatch(r"#### (\d+)")("19", "19")
        (1.0, 0.0)
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise InputError(f"pattern is no regular expression: {error}") from error

    def __call__(self, answer: str, reference: Any) -> float:  # noqa: ANN401 - any reference
        """Score one answer."""
        found = re.fullmatch(self.pattern, answer.strip(), re.DOTALL)
        return float(found is not None and (not found.groups() or found[1] == str(reference)))


def json_match(answer: str, reference: Any) -> float:  # noqa: ANN401 - JSON data or its text
    """Share of the reference's fields, or items of a list, that the answer's JSON has; 0 for none.

    Fields or items that the reference has not count against the answer. `true` is not 1.

    Example:
        >>> json_match('{"a": 1, "b": 3}', {"a": 1, "b": 2}), json_match("a is 1", {"a": 1})
        (0.5, 0.0)
        >>> json_match("[1, 2, 3]", [3, 1]) == 2 / 3
        True
    """
    truth = json.loads(reference) if isinstance(reference, str) else reference
    fenced = FENCE.search(answer)
    try:
        found = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return 0.0
    if isinstance(truth, dict) and isinstance(found, dict):
        right = sum(name in found and _same(found[name], value) for name, value in truth.items())
        most = len(truth.keys() | found.keys())
        return float(right / most) if most else 1.0
    if isinstance(truth, list) and isinstance(found, list):
        left = list(found)
        for item in truth:
            place = next((k for k, other in enumerate(left) if _same(other, item)), None)
            if place is not None:
                del left[place]
        most = max(len(found), len(truth))
        return float((len(found) - len(left)) / most) if most else 1.0
    return float(_same(found, truth))


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - JSON data
    """Equality of JSON data: Python's, but for `True == 1`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(v, other[k]) for k, v in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


@final
@dataclass(frozen=True, slots=True)
class Rouge:
    """ROUGE F1 by the package rouge-score.

    Args:
        kind: "rouge1", "rouge2", "rougeL" and so on.

    Example:
        >>> round(Rouge("rouge1")("the cat sat", "the cat"), 2)
        0.8
    """

    kind: str = "rougeL"

    def __call__(self, answer: str, reference: Any) -> float:  # noqa: ANN401 - text
        """Score one answer."""
        package = import_optional("rouge_score.rouge_scorer", "Rouge", "prompts", "rouge-score")
        scorer = package.RougeScorer([self.kind], use_stemmer=True)
        return float(scorer.score(str(reference), answer)[self.kind].fmeasure)


@final
@dataclass(frozen=True, slots=True)
class Bleu:
    """BLEU of one answer, from 0 to 1, by the package sacrebleu; see `corpus_bleu` for many.

    Example:
        >>> Bleu()("the cat sat on the mat", "the cat sat on the mat") > 0.999
        True
    """

    def __call__(self, answer: str, reference: Any) -> float:  # noqa: ANN401 - text
        """Score one answer."""
        package = import_optional("sacrebleu", "Bleu", "prompts")
        return float(package.sentence_bleu(answer, [str(reference)]).score / 100.0)


def corpus_bleu(answers: list[str], references: list[Any]) -> float:
    """BLEU of all answers together, from 0 to 1: `WholeSet(corpus_bleu)`.

    Example:
        >>> corpus_bleu(["the cat sat on the mat"], ["the cat sat on the mat"]) > 0.999
        True
    """
    package = import_optional("sacrebleu", "corpus_bleu", "prompts")
    return float(package.corpus_bleu(answers, [list(map(str, references))]).score / 100.0)


@final
@dataclass(frozen=True, slots=True)
class WholeSet:
    """A metric of all answers at once, such as corpus BLEU or F1: one number.

    Args:
        function: From the list of answers and the list of references to a number.
    """

    function: Callable[[list[str], list[Any]], float]


def as_text(reference: Any) -> str:  # noqa: ANN401 - any reference
    """A right answer as a model would write it: JSON unless it is text.

    Example:
        >>> as_text({"a": 1})
        '{"a": 1}'
    """
    return reference if isinstance(reference, str) else json.dumps(reference)


def grade(
    metric: Any,  # noqa: ANN401 - a Metric, a WholeSet or a Judge
    texts: Sequence[str],
    answers: Sequence[str],
    references: Sequence[Any],
) -> tuple[FloatArray, float]:
    """Score answers; one without text scores 0.

    Returns:
        One score each, or one for all by a metric of the whole set; and what a judge cost.

    Raises:
        StopRunError: If the metric raises or gives no finite number, with the example.
    """
    if isinstance(metric, WholeSet):
        scores = [_checked(metric.function, list(answers), list(references), "all examples")]
        return np.array(scores), 0.0
    rows, found = [k for k, answer in enumerate(answers) if answer], np.zeros(len(answers))
    where = [f"example {k} ({texts[k][:80]!r}), answer {answers[k][:80]!r}" for k in rows]
    given, right = [answers[k] for k in rows], [references[k] for k in rows]
    if hasattr(metric, "judge"):
        scores, cost = metric.judge([texts[k] for k in rows], given, right) if rows else ([], 0.0)
    else:
        scores, cost = list(map(partial(_checked, metric), given, right, where)), 0.0
    found[rows] = scores
    return found, cost


def _checked(metric: Callable[..., float], answer: Any, reference: Any, where: str) -> float:  # noqa: ANN401
    try:
        score = float(metric(answer, reference))
    except Exception as error:
        raise StopRunError(f"the metric raised {described(error)} for {where}") from error
    if not math.isfinite(score):
        raise StopRunError(f"the metric gave {score} for {where}")
    return score


def mean_loss(theta: Any, phi: Mapping[str, Any]) -> float:  # noqa: ANN401, ARG001 - array
    """Mean of the losses of the examples."""
    return float(np.mean(theta))
