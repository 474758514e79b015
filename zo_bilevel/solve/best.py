"""The best solve so far: one tracker for runs, phases and bridges."""

import math
from typing import final

from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray


@final
class BestSoFar:
    """Keeps the solve of lowest loss, of equal ones the first.

    One that keeps all constraints is better than any that breaks one; of those that do, the one
    that breaks them least.

    Example:
        >>> from zo_bilevel.solve.evaluation import Point
        >>> best = BestSoFar()
        >>> solves = [Evaluation(Point([x]), "ok", [x], x**2) for x in (2.0, -1.0, 1.0)]
        >>> [best.see(solve) for solve in solves], best.loss
        ([True, True, False], 1.0)
    """

    __slots__ = ("_number", "evaluation")

    def __init__(self) -> None:
        self.evaluation: Evaluation | None = None
        self._number = 0

    @property
    def loss(self) -> float:
        """Its loss; infinity before any solve was ok."""
        return math.inf if self.evaluation is None else self.evaluation.loss

    @property
    def x(self) -> FloatArray | None:
        """Its point, or `None`."""
        return None if self.evaluation is None else self.evaluation.point.x

    def see(self, evaluation: Evaluation, number: int = 0) -> bool:
        """Look at one more solve.

        Args:
            evaluation: Any solve; one that is not ok is no candidate.
            number: Of two equal ones the lower is the first, where solves come out of order.
        """
        if not evaluation.ok:
            return False
        best = self.evaluation
        if best is None or (*evaluation.rank, number) < (*best.rank, self._number):
            self.evaluation, self._number = evaluation, number
            return True
        return False
