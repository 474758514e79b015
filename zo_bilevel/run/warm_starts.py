"""Answers for solvers that can begin from one: that of the nearest solved point."""

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

import numpy as np

from zo_bilevel.solve.evaluation import Evaluation
from zo_bilevel.support.arrays import FloatArray

WARM_BYTES: Final = 256 * 2**20
"""The newest answers are kept, as many as these bytes hold."""


def takes_warm(inner: Callable[..., Any]) -> bool:
    """Whether a solver names the keyword `warm`."""
    try:
        parameter = inspect.signature(inner).parameters.get("warm")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY


@final
class WarmStarts:
    """The answers of the solves that a run was told, in their order.

    Which of them a solve begins from is fixed when it is asked for: numbers depend neither on
    workers nor, in rounds, on the order of arrival, and a stored run replays exactly.
    """

    def __init__(self) -> None:
        self._told: deque[tuple[FloatArray, Any, int]] = deque()
        self._bytes = 0

    def tell(self, evaluation: Evaluation) -> None:
        """Remember an answer."""
        if not evaluation.ok or evaluation.theta is None:
            return
        size = evaluation.theta.nbytes + evaluation.point.x.nbytes
        self._told.append((evaluation.point.x, evaluation.inner_solution, size))
        self._bytes += size
        while self._bytes > WARM_BYTES and len(self._told) > 1:
            self._bytes -= self._told.popleft()[2]

    def nearest(self, x: FloatArray) -> Any:  # noqa: ANN401 - the user's structure
        """The answer of the point that is nearest in scaled units, the newest of equals.

        Returns:
            As the solver returned it, read-only; `None` while there is none.
        """
        if not self._told:
            return None
        away = np.array([place for place, _, _ in self._told]) - x
        distances = np.einsum("ij,ij->i", away, away)
        last = len(distances) - 1 - int(np.argmin(distances[::-1]))
        return self._told[last][1]
