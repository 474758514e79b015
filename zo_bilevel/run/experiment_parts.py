"""Solves of `Experiments`: split into one job an experiment, and put together again."""

import dataclasses
import math
from collections.abc import Mapping
from typing import final

import numpy as np

from zo_bilevel.methods.constrained.smooth_model import FIRST_LENGTH, SmoothModel
from zo_bilevel.problem.experiments import Experiments, part_name
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.solve.evaluation import Evaluation, Outcome, Point
from zo_bilevel.support.arrays import FloatArray

MOST_KNOWN = 50
"""Newest whole solves that tell what a failed experiment would have given."""


@final
class ExperimentParts:
    """The jobs of each point of a round; one where the inner solver is not `Experiments`.

    Attributes:
        count: Jobs of a point.
    """

    def __init__(self, problem: Problem) -> None:
        inner = problem.inner
        self._names = tuple(inner.conditions) if isinstance(inner, Experiments) else ()
        self.count = max(len(self._names), 1)
        self._points: dict[int, FloatArray] = {}
        self._whole: dict[int, list[Outcome]] = {}
        self._known: list[tuple[float, FloatArray, list[Outcome]]] = []

    def split(self, places: Mapping[int, Point]) -> dict[int, Point]:
        """Points by the place of their job, for each experiment one."""
        if not self._names:
            return dict(places)
        self._points |= {place: point.x for place, point in places.items()}
        return {
            place * self.count + index: dataclasses.replace(point, part=(name, index))
            for place, point in places.items()
            for index, name in enumerate(self._names)
        }

    def joined(self, found: Mapping[int, Outcome]) -> dict[int, Outcome]:
        """Outcomes by place in the round, of those whose jobs were all answered."""
        if not self._names:
            return dict(found)
        self._whole.clear()
        answers: dict[int, list[Outcome]] = {}
        for job in sorted(found):
            answers.setdefault(job // self.count, []).append(found[job])
        return {
            place: self._joined(place, parts)
            for place, parts in answers.items()
            if len(parts) == self.count
        }

    def _joined(self, place: int, parts: list[Outcome]) -> Outcome:
        seconds, cost = sum(part.seconds for part in parts), sum(part.cost for part in parts)
        failed = [index for index, part in enumerate(parts) if part.status != "ok"]
        said = "; ".join(
            f"experiment {self._names[k]!r} {parts[k].status}: {parts[k].error}" for k in failed
        )
        if not failed:
            self._whole[place] = parts
        elif not self._known or len(failed) == len(parts):
            status = parts[failed[0]].status
            return Outcome(status, seconds=seconds, cost=cost, error=said)
        else:
            x = self._points[place]
            parts = [self._expected(k, x) if k in failed else part for k, part in enumerate(parts)]
        thetas = [part.theta for part in parts if part.theta is not None]
        theta, worker = np.concatenate(thetas), parts[0].worker
        return Outcome("ok", theta, self._layout(parts), seconds, cost, said, worker)

    def _expected(self, index: int, x: FloatArray) -> Outcome:
        """What a part would be: that of the best whole solve, and how others differ from it."""
        whole = self._known
        center = min(range(len(whole)), key=lambda k: whole[k][0])
        like = whole[center][2][index]
        thetas = [parts[index].theta for _, _, parts in whole]
        if len(whole) == 1 or like.theta is None:
            return like
        points = np.array([point for _, point, _ in whole])
        model = SmoothModel(points, np.array(thetas), center, FIRST_LENGTH)
        return dataclasses.replace(like, theta=model.values(x - points[center]))

    def _layout(self, parts: list[Outcome]) -> ThetaLayout:
        named = [
            (part_name(name, inner), shape, labels)
            for name, part in zip(self._names, parts, strict=True)
            if (layout := part.layout) is not None
            for inner, shape, labels in zip(
                layout.names or ("",),
                layout.shapes,
                layout.labels or ((),) * len(layout.shapes),
                strict=True,
            )
        ]
        layouts = [part.layout for part in parts if part.layout is not None]
        labels = tuple(own for _, _, own in named)
        return ThetaLayout(
            tuple(name for name, _, _ in named),
            tuple(shape for _, shape, _ in named),
            max((layout.dtype for layout in layouts), key=lambda d: float(np.finfo(d).eps)),
            any(layout.is_torch for layout in layouts),
            labels if any(labels) else (),
        )

    def judged(self, evaluations: Mapping[int, Evaluation]) -> dict[int, Evaluation]:
        """The evaluations by the places of their jobs, the loss with the first of each."""
        if not self._names:
            return dict(evaluations)
        found: dict[int, Evaluation] = {}
        for place, evaluation in evaluations.items():
            if place in self._whole and evaluation.ok:
                known = evaluation.loss, evaluation.point.x, self._whole[place]
                self._known = [*self._known[1 - MOST_KNOWN :], known]
            self._points.pop(place, None)
            first = place * self.count
            found[first] = evaluation
            rest = Evaluation(evaluation.point, "ok", None, math.inf, violation=math.inf)
            found |= dict.fromkeys(range(first + 1, first + self.count), rest)
        return found
