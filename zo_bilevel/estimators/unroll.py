"""Reverse unrolling (RGU), exact but with memory that grows with the steps, and truncated (TRGU).

Source: arXiv 2406.14095, section 2.2; truncation as in Shaban et al. (2019), "Truncated
Back-propagation for Bilevel Optimization", arXiv 1810.10667.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from zo_bilevel.estimators.derivatives import Pull
from zo_bilevel.estimators.reverse import ReverseEstimator
from zo_bilevel.support.errors import InputError


@final
@dataclass(frozen=True, slots=True)
class ReverseUnroll(ReverseEstimator):
    """RGU: the exact hypergradient of the unrolled loop, memory O(steps).

    Example:
        >>> ReverseUnroll()
        ReverseUnroll()
    """

    @property
    def order(self) -> Pull:
        """Back through all of it."""
        return Pull("trajectory", None)


@final
@dataclass(frozen=True, slots=True)
class TruncatedUnroll(ReverseEstimator):
    """TRGU: back through the last k steps only; biased, memory O(k).

    Args:
        num_steps: k, >= 1. With all T steps it equals `ReverseUnroll`.

    Raises:
        InputError: If `num_steps < 1`.

    Example:
        >>> TruncatedUnroll(5).num_steps
        5
    """

    num_steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise InputError(f"num_steps must be a whole number >= 1, got {self.num_steps!r}")

    @property
    def order(self) -> Pull:
        """Back through its end."""
        return Pull("trajectory", self.num_steps)
