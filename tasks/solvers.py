"""What the tasks' inner solvers share: flat coordinates, batches, noise."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import numpy as np
import torch

from zo_bilevel.support.arrays import FloatArray

Simulate: TypeAlias = Callable[[FloatArray], FloatArray]
SimulateTensor: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@final
class ArraySolver:
    """An inner solver made of one numeric function, one at a time or a batch in one call.

    Args:
        name: Name in stores and reports.
        parameters: Names stacked along the last axis of the function's argument; a single
            name of a shaped parameter is passed as it is.
        simulate: numpy function on shape `(n,)` or, for one plain number, `()`.
        simulate_tensor: The same in torch with leading batch axes, or `None`.
    """

    def __init__(
        self,
        name: str,
        parameters: tuple[str, ...],
        simulate: Simulate,
        simulate_tensor: SimulateTensor | None = None,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.simulate = simulate
        self.simulate_tensor = simulate_tensor

    def __call__(self, phi: Mapping[str, Any]) -> FloatArray:
        """One solve, shape `(m,)`."""
        values = [np.asarray(phi[name], dtype=np.float64) for name in self.parameters]
        return self.simulate(values[0] if len(values) == 1 else np.stack(values, axis=-1))

    def solve_batch(self, phis: Mapping[str, Any]) -> Any:  # noqa: ANN401 - array or tensor
        """A whole round in one call, shape `(batch, m)`; tensors in, tensors out."""
        values = [torch.as_tensor(phis[name], dtype=torch.float64) for name in self.parameters]
        stacked = values[0] if len(values) == 1 else torch.stack(values, dim=-1)
        if self.simulate_tensor is None:
            return np.stack([self.simulate(row) for row in stacked.numpy()])
        with torch.no_grad():
            return self.simulate_tensor(stacked)


@final
class Noisy:
    """An inner solver with Gaussian noise that differs at every point and seed.

    Common random numbers do not help against it: like the round-off of an adaptive solver or a
    Monte-Carlo count, it has no continuity in phi.

    Args:
        inner: The exact solver.
        level: Standard deviation of the noise, in the units of theta, > 0.
    """

    def __init__(self, inner: ArraySolver, level: float) -> None:
        self.inner = inner
        self.level = level
        self.name = f"{inner.name}-noise-{level:.3g}"

    def __call__(self, phi: Mapping[str, Any], *, seed: int) -> FloatArray:
        """One noisy solve, shape `(m,)`; the same point and seed give the same noise."""
        theta = self.inner(phi)
        digest = hashlib.sha256(str(seed).encode())
        for name in self.inner.parameters:
            digest.update(np.asarray(phi[name], dtype="<f8").tobytes())
        rng = np.random.default_rng(int.from_bytes(digest.digest()[:8], "little"))
        return theta + self.level * rng.standard_normal(theta.shape)


def with_noise(inner: ArraySolver, noise: float, target: FloatArray) -> ArraySolver | Noisy:
    """Add noise of a share of theta's spread, or none.

    Args:
        inner: The exact solver.
        noise: Standard deviation as a share of the target's standard deviation, >= 0.
        target: The data, shape `(m,)`.
    """
    return Noisy(inner, noise * float(np.std(target))) if noise > 0 else inner
