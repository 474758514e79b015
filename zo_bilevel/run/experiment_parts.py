"""Solves of `Experiments`: split into one job an experiment, and put together again."""

import dataclasses
import math
from collections.abc import Mapping
from typing import final

import numpy as np

from zo_bilevel.problem.experiments import Experiments, part_name
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.solve.evaluation import Evaluation, Outcome, Point


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

    def split(self, places: Mapping[int, Point]) -> dict[int, Point]:
        """Points by the place of their job, for each experiment one."""
        if not self._names:
            return dict(places)
        return {
            place * self.count + index: dataclasses.replace(point, part=(name, index))
            for place, point in places.items()
            for index, name in enumerate(self._names)
        }

    def joined(self, found: Mapping[int, Outcome]) -> dict[int, Outcome]:
        """Outcomes by place in the round, of those whose jobs were all answered."""
        if not self._names:
            return dict(found)
        answers: dict[int, list[Outcome]] = {}
        for job in sorted(found):
            answers.setdefault(job // self.count, []).append(found[job])
        return {
            place: self._joined(parts)
            for place, parts in answers.items()
            if len(parts) == self.count
        }

    def _joined(self, parts: list[Outcome]) -> Outcome:
        """The whole solve; it fails where any of its experiments does."""
        seconds, cost = sum(part.seconds for part in parts), sum(part.cost for part in parts)
        failed = [(name, p) for name, p in zip(self._names, parts, strict=True) if p.status != "ok"]
        if failed:
            said = "; ".join(f"experiment {n!r} {part.status}: {part.error}" for n, part in failed)
            return Outcome(failed[0][1].status, seconds=seconds, cost=cost, error=said)
        theta = np.concatenate([part.theta for part in parts if part.theta is not None])
        return Outcome("ok", theta, self._layout(parts), seconds, cost, worker=parts[0].worker)

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
            first = place * self.count
            found[first] = evaluation
            rest = Evaluation(evaluation.point, "ok", None, math.inf, violation=math.inf)
            found |= dict.fromkeys(range(first + 1, first + self.count), rest)
        return found
