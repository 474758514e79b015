"""The loss around the best point, in the coordinates of the directions explored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.support.arrays import FloatArray


@final
@dataclass(frozen=True, slots=True)
class Quadratic:
    """gradient . s + s . hessian s / 2, and what doubt about the slopes adds to the Hessian.

    Args:
        gradient: Shape `(b,)`.
        hessian: Shape `(b, b)`.
        doubt: Shape `(b, b)`.
        ignorance: What the doubt about a direction would be if nothing were known of it.
    """

    gradient: FloatArray
    hessian: FloatArray
    doubt: FloatArray
    ignorance: float

    @property
    def is_finite(self) -> bool:
        """Whether all of it is."""
        parts = self.gradient.sum() + self.hessian.sum() + self.doubt.sum() + self.ignorance
        return bool(np.isfinite(parts))

    def change(self, step: FloatArray, *, doubt: bool = False) -> float:
        """Of the loss, along a step."""
        matrix = self.hessian + self.doubt if doubt else self.hessian
        return float(step @ (self.gradient + 0.5 * (matrix @ step)))
