"""Answers that may be NaN: where a target has no value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.theta import UNMEASURED, ThetaLayout
from zo_bilevel.support.arrays import FloatArray


@final
@dataclass(frozen=True, eq=False, slots=True)
class Unmeasured:
    """Where a target is missing, so that an inner solution may be NaN.

    Args:
        layout: Structure of the target.
        is_missing: Shape `(m,)`, in its order.
    """

    layout: ThetaLayout
    is_missing: NDArray[np.bool_]

    def filled(self, theta: FloatArray, layout: ThetaLayout) -> FloatArray:
        """An inner solution with `UNMEASURED` in place of NaN where nothing is measured."""
        if layout.size != self.layout.size or sorted(layout.names) != sorted(self.layout.names):
            return theta
        order = self.layout.order_of(layout.names)
        missing = self.is_missing if order is None else self.is_missing[order]
        return np.where(missing & np.isnan(theta), UNMEASURED, theta)
