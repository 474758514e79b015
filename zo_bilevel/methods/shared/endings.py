"""What a search that has ended may claim: a minimum, or only that nothing lower was found."""

from collections.abc import Sequence

import numpy as np

CONVERGED = "converged: nothing left to gain within the bounds"
UNFORESEEN = "no model foresaw the last steps, the loss may jump or have kinks there"
NOTHING_FOUND = "nothing left to gain was found"
LEAST_STEP = 1e-9
"""Share of a loss: losses that are closer than that are as close as rounding and slopes bring them.
"""


def ending(losses: Sequence[float], size: int, doubt: str, limits: str = "bounds") -> str:
    """Why a search over reals has ended, in words.

    Args:
        losses: All that it saw, of points that are allowed.
        size: Number of parameters.
        doubt: What speaks against a minimum, in words; empty for nothing.
        limits: Within which it searched.

    Example:
        >>> ending([0.3, 0.1, 0.1, 0.1], 2, "")
        'nothing left to gain was found; 3 solves have the lowest loss, which may change in steps'
    """
    lowest = min(losses)
    same = sum(loss == lowest for loss in losses)
    if is_in_steps(losses, size):
        doubt = f"{same} solves have the lowest loss, which may change in steps"
    if doubt:
        return f"{NOTHING_FOUND}; {doubt}"
    return CONVERGED.replace("bounds", limits)


def is_in_steps(losses: Sequence[float], size: int) -> bool:
    """Whether the lowest loss came again and again, and none is hardly higher.

    At a minimum of a smooth loss, rounding too makes losses the same, but others differ by little.
    """
    seen = np.asarray(losses)
    above = seen - seen.min()
    higher = above[above > 0.0]
    if int((above == 0.0).sum()) <= size:
        return False
    return not higher.size or bool(higher.min() > LEAST_STEP * np.abs(seen).max())
