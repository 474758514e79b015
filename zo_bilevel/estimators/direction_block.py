"""Directions kept as the seed that draws them: from counters, so anywhere and in any part.

Every number is a hash of its place, computed alike by numpy and by torch on any device. No state
is carried along: a chunk of a million-parameter sketch is drawn where it is pushed, and once more
where it is weighted, at a cost proportional to its size.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from zo_bilevel.estimators.directions import Family, draw_directions
from zo_bilevel.problem.space import Space


@final
@dataclass(frozen=True, slots=True)
class DirectionBlock:
    """Some of the directions of a sketch.

    Args:
        family: "rademacher" and "gaussian" as they are; "orthogonal" are cosines with random
            signs: distinct rows of a discrete cosine transform, orthogonal across all blocks of
            one entropy, at O(N) each. Others are drawn as `draw_directions` does.
        count: How many.
        entropy: Shared by all blocks of a sketch, >= 0.
        start: Place of the first direction in the sketch.
        total: Directions of the sketch.
    """

    family: Family
    count: int
    entropy: int
    start: int
    total: int

    def draw(self, space: Space, device: str = "cpu") -> tuple[Any, Any]:
        """Directions and duals, both `(N, count)`; the same every time.

        Args:
            space: Gives N, and the prior.
            device: Where; anything but "cpu" gives torch tensors there.
        """
        if self.family not in ("rademacher", "gaussian", "orthogonal"):
            rng = np.random.default_rng((self.entropy, self.start))
            return draw_directions(self.family, self.count, space.prior, rng)
        rows = _count_up(space.size, str(device))
        columns = [
            self._column(rows, place) for place in range(self.start, self.start + self.count)
        ]
        if isinstance(rows, np.ndarray):
            drawn: Any = np.stack(columns, axis=1)
        else:
            import torch

            drawn = torch.stack(columns, dim=1)
        return drawn, drawn

    def _column(self, rows: Any, place: int) -> Any:  # noqa: ANN401 - array or tensor
        size = len(rows)
        if self.family == "rademacher":
            return _signs(rows, self.entropy, 1 + place)
        if self.family == "gaussian":
            return _normal(rows, self.entropy, 1 + 2 * place)
        frame, place = divmod(place, size)
        left = min(size, self.total - frame * size)
        rng = np.random.default_rng((self.entropy, frame))
        frequency = int(rng.choice(size, left, replace=False)[place])
        signs = _signs(rows, self.entropy, -1 - frame)
        if frequency == 0:
            return signs
        # exact in whole numbers up to the last moment: the angle is periodic in 4 N
        angle = ((2 * rows + 1) * frequency) % (4 * size)
        cosines = _library(rows).cos(_double(angle) * (math.pi / (2 * size)))
        return signs * (math.sqrt(2.0) * cosines)


def _count_up(size: int, device: str) -> Any:  # noqa: ANN401 - array or tensor
    if device == "cpu":
        return np.arange(size, dtype=np.int64)
    import torch

    return torch.arange(size, dtype=torch.int64, device=device)


def _library(rows: Any) -> Any:  # noqa: ANN401 - numpy or torch
    if isinstance(rows, np.ndarray):
        return np
    import torch

    return torch


def _double(rows: Any) -> Any:  # noqa: ANN401 - array or tensor
    return rows.astype(np.float64) if isinstance(rows, np.ndarray) else rows.double()


def _hashed(rows: Any, entropy: int, column: int) -> Any:  # noqa: ANN401 - array or tensor
    """63 random bits for every row: the finaliser of SplitMix64 (Steele, Lea, Flood 2014).

    Multiplications of whole numbers of 64 bits wrap around in numpy and in torch alike; shifts
    to the right keep the sign there, so that its copies are masked away.
    """
    key = np.random.SeedSequence(entropy, spawn_key=(column + (1 << 31),))
    offset, golden = (int(word) for word in key.generate_state(2, np.uint64).view(np.int64))
    mixed = rows * (golden | 1) + offset
    mixed = (mixed ^ ((mixed >> 30) & ((1 << 34) - 1))) * _wrapped(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ ((mixed >> 27) & ((1 << 37) - 1))) * _wrapped(0x94D049BB133111EB)
    return (mixed ^ ((mixed >> 31) & ((1 << 33) - 1))) & ((1 << 63) - 1)


def _wrapped(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _signs(rows: Any, entropy: int, column: int) -> Any:  # noqa: ANN401 - array or tensor
    """-1 or 1."""
    return 1.0 - 2.0 * _double(_hashed(rows, entropy, column) >> 62)


def _normal(rows: Any, entropy: int, column: int) -> Any:  # noqa: ANN401 - array or tensor
    """Standard normal numbers (Box and Muller 1958)."""
    library = _library(rows)
    first, second = (_double(_hashed(rows, entropy, column + k) >> 10) for k in (0, 1))
    radius = library.sqrt(-2.0 * library.log((first + 0.5) * 2.0**-53))
    return radius * library.cos(second * (2.0 * math.pi * 2.0**-53))
