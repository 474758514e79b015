"""What a problem of the arena is: a noiseless model, its target, a start, a box, and noise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

import zo_bilevel as zb
from benchmarks.arena.case import Half, half_of

FloatArray: TypeAlias = NDArray[np.float64]
Model: TypeAlias = Callable[[FloatArray], FloatArray]
NoiseKind: TypeAlias = Literal["additive", "proportional", "step"]
HUGE = 1e50
"""Stands for a residual that overflowed, where a peer needs a finite number."""


@dataclass(frozen=True)
class Noise:
    """How the solver's answer is spoilt.

    Args:
        kind: "additive": plus `level` times the rms residual of the start, normal;
            "proportional": each number times `1 + level * normal`; "step": rounded to multiples
            of `level` times that rms, as output files with few digits are.
        level: Relative size, > 0.
    """

    kind: NoiseKind
    level: float

    def __str__(self) -> str:
        return f"{self.kind}-{self.level:.0e}"


@dataclass(frozen=True)
class ArenaProblem:
    """Minimise `outer(model(x))`, by default the mean of `(model(x) - target)**2`.

    Args:
        name: Unique.
        base: The function behind it; decides the half, so that no variant of a function that was
            tuned on is ever among the held ones.
        group: Where it is counted.
        model: Noiseless, from `(N,)` to `(m,)`.
        target: What the model should give, shape `(m,)`; zeros for systems.
        start: Shape `(N,)`.
        lower: Smallest values, shape `(N,)`.
        upper: Largest values, shape `(N,)`.
        has_bounds: Whether the box belongs to the problem; else it is a placeholder, given to
            methods that need one and kept from those that do not.
        smallest: Published smallest sum of squares, for the tests; `None` if there is none.
        noise: Noise of the solver.
        max_groups: Budget in groups of N + 1 solves.
        correlation_length: Of a field; see `zb.Real`.
        shape: Of a field; `()` for a row of N numbers.
        truth: Where the data come from or a certified minimum, from where `best` searches too.
        outer: Torch function `f(theta, phi)` in place of the mean square.
    """

    name: str
    base: str
    group: str
    model: Model
    target: FloatArray
    start: FloatArray
    lower: FloatArray
    upper: FloatArray
    has_bounds: bool = False
    smallest: float | None = None
    noise: Noise | None = None
    max_groups: int = 200
    correlation_length: float | None = None
    shape: tuple[int, ...] = ()
    truth: FloatArray | None = None
    outer: Callable[..., Any] | None = None

    @property
    def size(self) -> int:
        """N."""
        return self.start.size

    @property
    def max_solves(self) -> int:
        """The whole budget."""
        return self.max_groups * (self.size + 1)

    @property
    def half(self) -> Half:
        """By a hash of the base; the salt was taken for even halves, before any method had run."""
        return half_of(f"b/{self.base}")

    def theta(self, x: FloatArray) -> FloatArray:
        """Noiseless answer, shape `(m,)`; not finite where the model overflows."""
        with np.errstate(all="ignore"):
            return np.asarray(self.model(np.asarray(x, dtype=np.float64)), dtype=np.float64)

    def loss_of(self, theta: FloatArray) -> float:
        """Loss of an answer; infinity where it is not finite."""
        if self.outer is not None:
            return _torch_value(self.outer, theta)
        with np.errstate(all="ignore"):
            value = float(np.mean((theta - self.target) ** 2))
        return value if np.isfinite(value) else float("inf")

    def true_loss(self, x: FloatArray) -> float:
        """Noiseless loss."""
        return self.loss_of(self.theta(x))

    @cached_property
    def start_loss(self) -> float:
        """Noiseless loss at the start."""
        return self.true_loss(self.start)

    @cached_property
    def key(self) -> str:
        """Digest of what the problem does: another formula, start or box, another key."""
        digest = hashlib.sha256(self.name.encode())
        for numbers in (self.theta(self.start), self.target, self.start, self.lower, self.upper):
            digest.update(np.ascontiguousarray(numbers).tobytes())
        return digest.hexdigest()[:16]

    def spoiler(self, seed: int) -> Callable[[FloatArray], FloatArray]:
        """The noise of one run.

        Args:
            seed: Of the run.

        Returns:
            From a noiseless to a noisy answer; each call draws anew.
        """
        noise = self.noise
        if noise is None:
            return lambda theta: theta
        name = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big")
        rng = np.random.default_rng([name, seed])
        unit = noise.level * float(np.sqrt(np.mean((self.theta(self.start) - self.target) ** 2)))
        if noise.kind == "additive":
            return lambda theta: theta + unit * rng.standard_normal(theta.size)
        if noise.kind == "proportional":
            return lambda theta: theta * (1 + noise.level * rng.standard_normal(theta.size))
        return lambda theta: np.round(theta / unit) * unit

    def space(self) -> zb.Space:
        """The box as a space of the project: one array where all coordinates are alike."""
        alike = np.ptp(self.lower) == 0 and np.ptp(self.upper) == 0
        if alike:
            low, high = float(self.lower[0]), float(self.upper[0])
            shape, length = self.shape or (self.size,), self.correlation_length
            return zb.Space(x=zb.Real(low, high, shape=shape, correlation_length=length))
        pairs = zip(self.lower, self.upper, strict=True)
        return zb.Space(
            {f"x{k}": zb.Real(float(low), float(high)) for k, (low, high) in enumerate(pairs)}
        )

    def to_phi(self, x: FloatArray) -> dict[str, Any]:
        """Values by name."""
        if np.ptp(self.lower) == 0 and np.ptp(self.upper) == 0:
            return {"x": x.reshape(self.shape or x.shape)}
        return {f"x{k}": float(value) for k, value in enumerate(x)}

    def from_phi(self, phi: Mapping[str, Any]) -> FloatArray:
        """The other way round, shape `(N,)`."""
        if "x" in phi:
            return np.asarray(phi["x"], dtype=np.float64).ravel()
        return np.array([phi[f"x{k}"] for k in range(self.size)], dtype=np.float64)


def _torch_value(outer: Callable[..., Any], theta: FloatArray) -> float:
    import torch

    value = float(outer(torch.from_numpy(np.ascontiguousarray(theta)), {}))
    return value if np.isfinite(value) else float("inf")


def box_around(start: FloatArray, times: float = 10.0) -> tuple[FloatArray, FloatArray]:
    """A placeholder: `times` the larger of 1 and the coordinate's size, to both sides.

    Args:
        start: Shape `(N,)`.
        times: Half the width in those units.
    """
    reach = times * np.maximum(1.0, np.abs(start))
    return start - reach, start + reach
