"""The trust region without rounds: a new step as soon as the last one is judged.

One trial at a time decides: a step, a mended geometry, a probe of the noise, as with one worker.
The other workers take up directions, try steps of other lengths, and solve where the model knows
least. A decision that takes much longer than other solves is not waited for.
"""

from dataclasses import dataclass
from typing import final

from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.region_proposals import Trial
from zo_bilevel.methods.trust_region.region_search import RegionSearch
from zo_bilevel.solve.evaluation import Point

STEP_SCALES = (2.5, 1.0 / 3.0)
"""Of the radius of steps tried beside the one that decides."""
WORKERS_PER_STEP = 8
"""One step of another length runs for every so many workers."""


@final
@dataclass(eq=False, slots=True)
class _Running:
    """A trial and its solve.

    Args:
        trial: What was proposed.
        point: Its solve.
        before: Loss of the centre then.
        scale: Of the radius, of a step beside the one that decides; 0 for all others.
        age: Solves that arrived while it ran.
    """

    trial: Trial
    point: Point
    before: float
    scale: float = 0.0
    age: int = 0


@final
class RegionArrivals:
    """Runs a region search one arrival at a time."""

    def __init__(self, region: RegionSearch, part: ContinuousPart) -> None:
        self._region, self._part, region.width = region, part, 1
        self._running: list[_Running] = []

    def rounds(self) -> RoundsThen[None]:
        """Points to start now, until the radius is as small as it gets."""
        region = self._region
        while region.goes_on:
            points: list[Point] = []
            while len(self._running) < self._part.width and region.goes_on:
                new = self._propose()
                self._running += new
                points += [running.point for running in new]
            for evaluation in (yield points) if region.goes_on else ():
                found = next((r for r in self._running if r.point is evaluation.point), None)
                if found is None:
                    continue
                self._running.remove(found)
                for other in self._running:
                    other.age += 1
                (value,) = self._part.told([found.trial.x], [evaluation])
                region.absorb_late(found.trial, value, found.before, is_main=found.scale == 0.0)

    def _propose(self) -> list[_Running]:
        """The trial that decides, unless a young one runs; then what else is worth a solve."""
        region, width = self._region, self._part.width
        if not any(
            r.trial.kind != "explore" and not r.scale and r.age < width for r in self._running
        ):
            return [self._run(trial) for trial in region.plan()]
        if fresh := region.grow_if_wanted():
            return [self._run(trial) for trial in fresh]
        scales = [running.scale for running in self._running if running.scale]
        for scale in STEP_SCALES[: width // WORKERS_PER_STEP]:
            if scale not in scales:
                return [self._run(region.step(scale), scale)]
        return [self._run(region.explore())]

    def _run(self, trial: Trial, scale: float = 0.0) -> _Running:
        role = "trial" if trial.kind == "step" else "sketch"
        before = self._region.model.centre()[1]
        return _Running(trial, self._part.point(trial.x, role), before, scale)
