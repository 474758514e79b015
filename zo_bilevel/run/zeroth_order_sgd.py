"""Fine-tuning by forward passes alone: perturbations are replayed from seeds, never stored.

Malladi et al. (2023), "Fine-Tuning Language Models with Just Forward Passes" (MeZO), arXiv
2305.17333; low-rank perturbations as in Chen et al. (2024), "Enhancing Zeroth-order Fine-tuning
for Language Models with Low-rank Structures" (LOZO), arXiv 2410.07698.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, final

import numpy as np
import torch

from zo_bilevel.support.arguments import finite_number, one_of, whole_number
from zo_bilevel.support.errors import InputError

PERTURBATIONS = ("low_rank", "gaussian")


@final
class ZerothOrderSGD(torch.optim.Optimizer):
    """`w <- w - lr (1/b) sum_k (f(w + r z_k) - f(w - r z_k)) / 2r z_k`, in the memory of inference.

    Unbiased for the gradient as the radius r goes to 0, at `2 b` forward passes a step. The weights
    are perturbed in place and put back; training can go on from `state_dict()`.

    Args:
        params: Weights, as for any torch optimizer.
        lr: Learning rate, > 0.
        radius: r, > 0.
        num_directions: b, >= 1.
        perturbation: "low_rank": `z = U V' / sqrt(rank)` for matrices, Gaussian for vectors, which
            costs little beside a forward pass and allows momentum; "gaussian": MeZO.
        rank: Of low-rank perturbations, >= 1.
        refresh: Steps for which V stays as it is, >= 1.
        momentum: In [0, 1), of low-rank perturbations; kept in U, a vector of size `rank` a row.
        seed: Of the perturbations.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> weights = torch.nn.Parameter(torch.zeros(4, 3))
        >>> optimizer = ZerothOrderSGD([weights], lr=0.03, num_directions=4)
        >>> losses = [float(optimizer.step(lambda: ((weights - 1) ** 2).sum())) for _ in range(200)]
        >>> losses[-1] < 0.01 * losses[0]
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        radius: float = 1e-3,
        num_directions: int = 1,
        perturbation: Literal["low_rank", "gaussian"] = "low_rank",
        rank: int = 2,
        refresh: int = 50,
        momentum: float = 0.0,
        seed: int = 0,
    ) -> None:
        for name, value in (("lr", lr), ("radius", radius)):
            finite_number(name, value, "> 0")
        counts = {"num_directions": num_directions, "rank": rank, "refresh": refresh}
        num_directions, rank, refresh = (whole_number(n, c, least=1) for n, c in counts.items())
        one_of("perturbation", perturbation, PERTURBATIONS)
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must lie in [0, 1), got {momentum}")
        if momentum and perturbation == "gaussian":
            raise InputError(
                "momentum needs low_rank perturbations: it would be as large as the weights"
            )
        self.radius, self.num_directions, self.seed = radius, num_directions, seed
        self.rank, self.refresh, self.is_low_rank = rank, refresh, perturbation == "low_rank"
        super().__init__(params, {"lr": lr, "momentum": momentum, "num_steps": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]  # noqa: ANN401
        """One step.

        Args:
            closure: The loss of the present weights on one batch, a number or a scalar tensor; it
                is called `2 b` times and must see the same batch, and dropout, each time.

        Returns:
            Mean of the losses, an estimate of that at the weights before the step.
        """
        number = self.param_groups[0]["num_steps"]
        slopes, total = [], 0.0
        for direction in range(self.num_directions):
            ends = []
            for move in (self.radius, -2.0 * self.radius):
                self._move(number, direction, move)
                ends.append(closure())
            self._move(number, direction, self.radius)
            slopes.append((ends[0] - ends[1]) / (2.0 * self.radius * self.num_directions))
            total = total + (ends[0] + ends[1]) / (2.0 * self.num_directions)
        self._descend(number, [float(slope) for slope in slopes])
        for group in self.param_groups:
            group["num_steps"] = number + 1
        return total

    def _weights(self) -> Iterator[tuple[int, torch.Tensor, dict[str, Any]]]:
        pairs = ((w, group) for group in self.param_groups for w in group["params"])
        for place, (weight, group) in enumerate(pairs):
            if weight.requires_grad:
                yield place, weight, group

    def _move(self, step: int, direction: int, distance: float) -> None:
        """Add `distance z` to the weights, z drawn again from its seed."""
        for place, weight, _ in self._weights():
            matrix = weight.view(weight.shape[0], -1) if weight.ndim > 1 else None
            left = self._left(place, weight, step, direction)
            if matrix is None or not self.is_low_rank:
                weight.add_(left, alpha=distance)
            else:
                right = self._right(place, matrix, step)
                matrix.addmm_(left, right.T, alpha=distance / math.sqrt(self.rank))

    def _descend(self, step: int, slopes: list[float]) -> None:
        for place, weight, group in self._weights():
            lr, momentum = group["lr"], group["momentum"]
            if weight.ndim < 2 or not self.is_low_rank:
                for direction, slope in enumerate(slopes):
                    weight.add_(self._left(place, weight, step, direction), alpha=-lr * slope)
                continue
            matrix = weight.view(weight.shape[0], -1)
            right = self._right(place, matrix, step)
            change: Any = 0.0
            for direction, slope in enumerate(slopes):
                change = change + slope * self._left(place, weight, step, direction)
            if momentum:
                change = change + momentum * self._remembered(place, weight, step, right)
                self.state[weight]["left"] = change
            matrix.addmm_(change, right.T, alpha=-lr / math.sqrt(self.rank))

    def _remembered(self, place: int, weight: torch.Tensor, step: int, right: torch.Tensor) -> Any:  # noqa: ANN401
        """Momentum in U; where V is new, projected on it."""
        left = self.state[weight].get("left")
        if left is None:
            return 0.0
        if step % self.refresh:
            return left
        matrix = weight.view(weight.shape[0], -1)
        before = self._right(place, matrix, step - 1)
        return left @ (before.T @ right) / matrix.shape[1]

    def _left(self, place: int, weight: torch.Tensor, step: int, direction: int) -> torch.Tensor:
        """Z itself, or U for a matrix."""
        shape = tuple(weight.shape)
        if self.is_low_rank and weight.ndim > 1:
            shape = (shape[0], self.rank)
        return self._drawn(shape, weight, (0, step, direction, place))

    def _right(self, place: int, matrix: torch.Tensor, step: int) -> torch.Tensor:
        shape = (matrix.shape[1], self.rank)
        return self._drawn(shape, matrix, (1, step // self.refresh, place))

    def _drawn(
        self, shape: tuple[int, ...], like: torch.Tensor, key: tuple[int, ...]
    ) -> torch.Tensor:
        words = np.random.SeedSequence(self.seed, spawn_key=key).generate_state(1, np.uint64)
        generator = torch.Generator(like.device).manual_seed(int(words[0]) >> 1)
        return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
