"""Perturbations of weights, drawn again from seeds instead of being stored."""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, final

import numpy as np
import torch

Draw: TypeAlias = Callable[[tuple[int, ...], torch.Tensor], torch.Tensor]
"""Numbers of a shape, where and as another tensor is: the next of a stream."""
RADIUS = 1e-3
PERTURBATIONS = ("low_rank", "rademacher", "gaussian")


@final
class Perturbations:
    """`z = U V' / sqrt(rank)` for matrices of "low_rank", independent numbers otherwise.

    Args:
        kind: One of `PERTURBATIONS`.
        rank: Columns of U and V.
        refresh: Steps for which V stays as it is.
        seed: Of all draws.
    """

    def __init__(self, kind: str, rank: int, refresh: int, seed: int) -> None:
        self.kind, self.rank, self.refresh, self.seed = kind, rank, refresh, seed
        self._epoch, self._rights = -1, dict[int, torch.Tensor]()

    def direction(self, step: int, number: int) -> Draw:
        """The stream of a direction; `left` takes from it, weight by weight, in their order."""
        return self._stream(signs if self.kind == "rademacher" else normals, 0, step, number)

    def has_factors(self, weight: torch.Tensor) -> bool:
        """Whether z of a weight is a product of factors."""
        return self.kind == "low_rank" and weight.ndim > 1

    def left(self, weight: torch.Tensor, draw: Draw) -> torch.Tensor:
        """Z itself, or U for a matrix."""
        return draw(
            (weight.shape[0], self.rank) if self.has_factors(weight) else weight.shape, weight
        )

    def add(
        self, weight: torch.Tensor, place: int, step: int, left: torch.Tensor, distance: float
    ) -> None:
        """Add `distance z` to the weight at a place among the weights."""
        if self.has_factors(weight):
            matrix = weight.view(weight.shape[0], -1)
            right = self._right(place, matrix, step // self.refresh)
            matrix.addmm_(left, right.T, alpha=distance / math.sqrt(self.rank))
        else:
            weight.add_(left, alpha=distance)

    def carried(
        self, left: torch.Tensor, weight: torch.Tensor, place: int, step: int
    ) -> torch.Tensor:
        """A U of the step before as one of this step: where V is new, projected on it."""
        if step % self.refresh:
            return left
        epoch, matrix = step // self.refresh, weight.view(weight.shape[0], -1)
        before = self._new_right(place, matrix, epoch - 1)
        return left @ (before.T @ self._right(place, matrix, epoch)) / matrix.shape[1]

    def _right(self, place: int, matrix: torch.Tensor, epoch: int) -> torch.Tensor:
        """V, kept while it stays as it is: as large as the momentum would be."""
        if epoch != self._epoch:
            self._epoch, self._rights = epoch, {}
        if place not in self._rights:
            self._rights[place] = self._new_right(place, matrix, epoch)
        return self._rights[place]

    def _new_right(self, place: int, matrix: torch.Tensor, epoch: int) -> torch.Tensor:
        return self._stream(normals, 1, epoch, place)((matrix.shape[1], self.rank), matrix)

    def _stream(self, kind: Callable[..., torch.Tensor], *key: int) -> Draw:
        """Numbers of a kind; the same again for a key."""
        words = np.random.SeedSequence(self.seed, spawn_key=key).generate_state(1, np.uint64)
        generators: dict[torch.device, torch.Generator] = {}

        def draw(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
            device = like.device
            if device not in generators:  # another seed for each device
                seed = (int(words[0]) >> 1) + len(generators)
                generators[device] = torch.Generator(device).manual_seed(seed)
            return kind(shape, generators[device], device, like.dtype)

        return draw


def fitting_radius(radius: float | Literal["auto"], weights: Sequence[torch.Tensor]) -> float:
    """A radius that the weights' precision shows; one that is given warns where it does not."""
    squares, count = 0.0, max(sum(weight.numel() for weight in weights), 1)
    for weight in weights:
        wide = torch.promote_types(weight.dtype, torch.float32)
        size = float(torch.linalg.vector_norm(weight.detach(), dtype=wide))
        squares += (torch.finfo(weight.dtype).eps * size) ** 2
    rounding = math.sqrt(squares / count)
    if radius == "auto":
        return max(RADIUS, 4.0 * rounding)
    if radius < rounding:
        warnings.warn(
            f"radius {radius:g} is less than the weights' rounding, about {rounding:.1e}: "
            "perturbed weights are what they were, or mostly rounding; give a larger radius",
            RuntimeWarning,
            stacklevel=3,
        )
    return radius


def normals(
    shape: tuple[int, ...], generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Independent normal numbers."""
    return torch.randn(shape, generator=generator, device=device, dtype=dtype)


def signs(
    shape: tuple[int, ...], generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Independent fair signs: 64 to a random word, eight to a row of a table.

    0.4 ns a number on a CPU core, where `torch.randn` takes 2.6.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 64), dtype=torch.int64, device=device)
    words.random_(-(1 << 63), None, generator=generator)  # all of the 64 bits
    rows = words.view(torch.uint8).int()
    return _table(device, dtype).index_select(0, rows).view(-1)[:count].view(shape)


@functools.lru_cache(maxsize=16)
def _table(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The signs of a byte, shape `(256, 8)`."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return (2 * bits - 1).to(device, dtype)
