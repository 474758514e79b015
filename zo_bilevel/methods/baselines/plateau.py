"""When a local search among rounded values has come to stand, so that a fair rival begins anew.

What a local search asks for is rounded to integers and choices. Near its end it asks for the same
ones again and again, or changes real numbers by ever less, until its own radius is that of
rounding: that can take the whole budget.
"""

import math
from collections.abc import Sequence
from typing import Final, final

from zo_bilevel.solve.evaluation import Evaluation

SOLVES_BEYOND_SIZE: Final = 4
"""Of solves in a row that gain nothing, how many more than coordinates are waited for."""
LEAST_SHARE: Final = 1e-3
"""Of what the search has gained in all; a solve that gains less has gained nothing."""


class StalledError(BaseException):
    """Raised in the library's thread where its local search stands; no library may catch it."""


@final
class Plateau:
    """Tells a local search that stands: its first model is there, and solves in a row gain nothing.

    Args:
        size: Coordinates.

    Example:
        >>> Plateau(1).patience
        5
    """

    def __init__(self, size: int) -> None:
        self.patience = size + SOLVES_BEYOND_SIZE
        self._design = 2 * size + 1
        self.begin()

    def begin(self) -> None:
        """Forget what was seen: another local search begins."""
        self._first = self._best = math.inf
        self._count = self._in_vain = 0

    def check(self, evaluations: Sequence[Evaluation]) -> None:
        """Take note of solves.

        Raises:
            StalledError: If the search stands.
        """
        for evaluation in evaluations:
            self._count += 1
            loss = evaluation.loss if evaluation.ok else math.inf
            if math.isinf(self._first):
                self._first = self._best = loss
                continue
            gained = self._first - self._best
            is_better = self._best - loss > LEAST_SHARE * gained
            self._in_vain = 0 if is_better else self._in_vain + 1
            self._best = min(self._best, loss)
        if self._count > self._design and self._in_vain >= self.patience:
            raise StalledError
