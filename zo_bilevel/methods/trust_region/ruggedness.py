"""Whether a loss is too rugged for a descent: found out from what it and a population gain."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import final

import numpy as np

from zo_bilevel.methods.shared.foresight import FORESEEN_RATIO
from zo_bilevel.methods.state import RoundsThen
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart, LocalSearch
from zo_bilevel.methods.trust_region.global_search import Evolution
from zo_bilevel.methods.trust_region.region_search import RegionSearch
from zo_bilevel.solve.streams import OTHER_SEED_STREAM
from zo_bilevel.support.arrays import FloatArray

FAR_AHEAD = 2.0
"""A population that gains so many times what the descent does is left alone."""
FORESEEN_STEPS = 0.1
"""Share of a turn's steps that are foreseen, from which a model foresees."""
FEWEST_STEPS = 4
"""Of a turn, from which they tell that a model does not foresee."""
LEAST_LEFT, GAIN_DRAWS = 0.4, 3
"""Share of a gain that there is on other draws too, or it is that of one draw; how many others."""
MOST_IDLE = 2
"""Turns of the descent without a gain or a step that was foreseen."""


@final
class Ruggedness:
    """What a descent and a population have shown so far.

    Args:
        part: Their coordinates, at the start.
        descent: The one.
        population: The other.

    Attributes:
        foresees: Whether the descent's model foresaw its last turn.
    """

    def __init__(self, part: ContinuousPart, descent: RegionSearch, population: Evolution) -> None:
        self._part, self._descent, self._population = part, descent, population
        self._first = part.best.loss
        self._idle, self._fails = 0, False
        self._gain: GainElsewhere | None = None
        self.foresees = False

    def note(self, ratios: Sequence[float], *, has_gained: bool) -> None:
        """Take in a turn of the descent.

        Args:
            ratios: Of actual to predicted gain, of its steps.
            has_gained: Whether the turn gained enough to count.
        """
        if not ratios:
            return
        good = np.greater(ratios, FORESEEN_RATIO)
        self.foresees = float(good.mean()) >= FORESEEN_STEPS
        self._fails = not self.foresees and len(ratios) >= FEWEST_STEPS
        self._idle += self._fails and not has_gained and not good.any()

    def judge(self) -> Generator[LocalSearch, None, bool]:
        """Whether the loss is rugged; asks for solves where nothing else tells."""
        gain = self._first - self._descent.model.value
        rival = self._first - self._population.lowest
        if rival > FAR_AHEAD * gain:
            return True
        if not self._fails or self._descent.model.noise > 0.0:  # which another search bears
            return False
        if rival > gain or self._idle >= MOST_IDLE:
            return True
        if rival <= 0.0:
            return False
        if self._gain is None:
            self._gain = GainElsewhere(self._part, self._descent.model.x)
            yield self._gain
            return self._gain.mean < LEAST_LEFT * gain
        return False


@final
class GainElsewhere:
    """How much of a gain there is on a few draws that it was not found on.

    Args:
        part: The coordinates.
        x: Where the gain was found, shape `(n,)`.

    Attributes:
        mean: Of the gains, from the start of all.
    """

    def __init__(self, part: ContinuousPart, x: FloatArray) -> None:
        self._part, self._pair, self.mean = part, [part.start, x], 0.0

    def rounds(self) -> RoundsThen[None]:
        """One round a draw."""
        part, kept = self._part, self._part.stream
        gains = []
        for draw in range(GAIN_DRAWS):
            part.stream = OTHER_SEED_STREAM, 0, draw
            before, after = yield from part.ask(self._pair, "trial", at_once=2)
            if before is not None and after is not None:
                gains.append(before - after)
        part.stream = kept
        self.mean = float(np.mean(gains)) if gains else 0.0
