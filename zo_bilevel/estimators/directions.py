"""Random directions: how the inner solver is probed.

Every family comes with duals `U` such that `E[u v'] = I`; `(1/b) sum_k (g . v_k) u_k` is then an
unbiased estimate of a gradient `g`. For all families but "prior", `U = V`.
"""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np

from zo_bilevel.problem.prior import Prior
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, unknown_name_message

Family: TypeAlias = Literal["orthogonal", "rademacher", "gaussian", "coordinate", "prior"]
FAMILIES: tuple[str, ...] = get_args(Family)


def check_family(family: str) -> None:
    """Refuse an unknown family of directions; `InputError` naming the nearest family."""
    if family not in FAMILIES:
        raise InputError("directions: " + unknown_name_message("family", family, FAMILIES))


def draw_directions(
    family: Family, count: int, prior: Prior, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw directions `V` and their duals `U`, both of shape `(N, b)`.

    With a gradient g of N numbers, the mean squared error of the b-direction estimate is
    `(N - b)/b |g|^2` for orthogonal and coordinate directions with b <= N, `(N - 1)/b |g|^2` for
    Rademacher ones (Lemma 3.1 of arXiv 2406.14095), `(N + 1)/b |g|^2` for Gaussian ones.

    Args:
        family: "orthogonal" (random orthonormal frame times sqrt(N)), "rademacher" (signs),
            "gaussian", "coordinate" (distinct axes times sqrt(N)), or "prior" (smooth draws
            from the prior covariance).
        count: Number of directions b, >= 1. Beyond N, orthogonal and coordinate directions
            start over with an independent frame.
        prior: Prior covariance of the scaled vector; gives N.
        rng: Source of randomness.

    Raises:
        InputError: If the family is unknown or `count < 1`.

    Example:
        >>> V, U = draw_directions("orthogonal", 3, Prior(3, []), np.random.default_rng(0))
        >>> bool(np.allclose(V @ U.T / 3, np.eye(3)))
        True
    """
    check_family(family)
    count = whole_number("num_directions", count, least=1)
    size = prior.size
    if family == "rademacher":
        signs = rng.integers(0, 2, size=(size, count)).astype(np.float64) * 2.0 - 1.0
        return signs, signs
    if family == "orthogonal":
        frames = _in_frames(size, count, lambda b: _orthonormal(size, b, rng))
        return frames, frames
    if family == "coordinate":
        axes = _in_frames(size, count, lambda b: _axes(size, b, rng))
        return axes, axes
    white = rng.standard_normal((size, count))
    if family == "gaussian" or prior.is_white:
        return white, white
    return prior.apply_sqrt(white), prior.whiten(white)


def direction_count(asked: int | Literal["auto"], family: Family, size: int) -> int:
    """Directions of a sketch in N = `size` dimensions.

    Beyond N in frames, whole frames alone: they are exact, and an incomplete one beside them, of
    equal weight a direction, is not.

    Example:
        >>> [direction_count(b, "orthogonal", 3) for b in (2, 3, 4, 5, 6)]
        [2, 3, 3, 3, 6]
    """
    if asked == "auto":
        return min(size, math.ceil(2 + 2 * math.log2(size)))
    if family in ("orthogonal", "coordinate") and asked > size:
        return asked - asked % size
    return asked


def frame_correction(family: Family, count: int, size: int) -> float:
    """Factor on the squared standard error of independent draws, for directions drawn together.

    Returns:
        1 for independent draws. For frames with `r = b mod N` directions left over beside whole
        ones, `r (N - r) / (b N)`: sampling without replacement, 0 for whole frames.
    """
    if family == "rademacher" and size == 1:
        return 0.0
    if family in ("orthogonal", "coordinate"):
        left = count % size
        return left * (size - left) / (max(count, 1) * size)
    return 1.0


def _in_frames(size: int, count: int, draw: Callable[[int], FloatArray]) -> FloatArray:
    blocks = []
    while count > 0:
        block = min(count, size)
        blocks.append(draw(block))
        count -= block
    return np.asarray(np.concatenate(blocks, axis=1))


def _orthonormal(size: int, count: int, rng: np.random.Generator) -> FloatArray:
    q, r = np.linalg.qr(rng.standard_normal((size, count)))
    # signs of r's diagonal make the frame uniform (Mezzadri 2007, "How to generate random
    # matrices from the classical compact groups")
    return np.asarray(q * np.where(np.diag(r) < 0, -1.0, 1.0) * np.sqrt(size))


def _axes(size: int, count: int, rng: np.random.Generator) -> FloatArray:
    axes = np.zeros((size, count))
    axes[rng.choice(size, count, replace=False), np.arange(count)] = np.sqrt(size)
    return axes
