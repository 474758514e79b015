"""Each component of a hypergradient by regression, for confidence intervals.

Along Gaussian directions `w_k = g_j v_jk + e_k`, where `e_k` is normal and independent of `v_jk`:
all other components at once. So the regression of the slopes on coordinate j alone has Student's t
with b - 1 degrees of freedom, however much one component dominates. The mean of `w_k v_jk` has the
skew of `v_jk^2` instead, which narrows the intervals of components that dominate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np

from zo_bilevel.support.arrays import FloatArray


@final
@dataclass(slots=True)
class SlopeRegression:
    """Sums over directions, added chunk by chunk.

    Args:
        size: Coordinates N.
        in_frames: Whether directions are drawn together, orthogonal up to N of them.

    Example:
        >>> one = SlopeRegression(2, in_frames=False)
        >>> one.add(np.array([[1.0, 2.0], [1.0, -2.0]]), np.array([3.0, 6.0]))
        >>> one.result()[0].round(6).tolist()
        [3.0, -1.8]
    """

    size: int
    in_frames: bool
    count: int = 0
    products: FloatArray = field(init=False)
    squares: FloatArray = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.products, self.squares = np.zeros(self.size), np.zeros(self.size)

    def add(self, directions: FloatArray, slopes: FloatArray) -> None:
        """Take in directions `(N, c)` and the slopes `(c,)` of the loss along them."""
        self.count += len(slopes)
        self.products += directions @ slopes
        self.squares += (directions**2).sum(axis=1)
        self.total += float(slopes @ slopes)

    def result(self) -> tuple[FloatArray, FloatArray]:
        """Estimates and their standard errors, both `(N,)`; NaN where it cannot be told."""
        count, size = self.count, self.size
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = self.products / self.squares
            left = self.total - self.products * estimate
            # of numbers that cancel, the rounding is left
            left = np.maximum(left, np.finfo(float).eps * count * self.total)
            variance = left / (count - 1) / self.squares
            if self.in_frames:
                # of the incomplete frame P = v v' / N; the others say all (variance of a
                # uniform projection's row, given its diagonal element)
                whole = count // size
                diagonal = np.clip(self.squares / size - whole, 0.0, 1.0)
                variance = variance * diagonal * (1.0 - diagonal) / (whole + diagonal)
        error: FloatArray = np.sqrt(variance)
        return estimate, np.where(self.squares > 0.0, error, np.nan)
