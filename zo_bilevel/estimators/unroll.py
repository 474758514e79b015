"""Reverse unrolling (RGU), exact, and truncated (TRGU).

Source: arXiv 2406.14095, section 2.2; truncation as in Shaban et al. (2019), "Truncated
Back-propagation for Bilevel Optimization", arXiv 1810.10667.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from zo_bilevel.estimators.pull import Pull
from zo_bilevel.estimators.reverse import ReverseEstimator
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError


@final
@dataclass(frozen=True, slots=True)
class ReverseUnroll(ReverseEstimator):
    """RGU: the exact hypergradient of the unrolled loop.

    Args:
        memory: "all" keeps every step: fastest, memory O(T). "sqrt" keeps sqrt(T) states and runs
            the steps between them once more, memory O(sqrt(T)). A number of bytes keeps as much
            as fits, and runs steps again as seldom as that allows.

    Raises:
        InputError: If memory is none of these.

    Example:
        >>> ReverseUnroll(memory="sqrt")
        ReverseUnroll(memory='sqrt')
    """

    memory: Literal["all", "sqrt"] | int = "all"

    def __post_init__(self) -> None:
        is_bytes = isinstance(self.memory, int) and not isinstance(self.memory, bool)
        if self.memory not in ("all", "sqrt") and not (is_bytes and int(self.memory) > 0):
            raise InputError(
                f"memory must be 'all', 'sqrt' or a number of bytes > 0, got {self.memory!r}"
            )

    @property
    def order(self) -> Pull:
        """Back through all of it."""
        return Pull("trajectory", (("memory", self.memory),))


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
        object.__setattr__(self, "num_steps", whole_number("num_steps", self.num_steps, least=1))

    @property
    def order(self) -> Pull:
        """Back through its end."""
        return Pull("trajectory", (("last_steps", self.num_steps),))
