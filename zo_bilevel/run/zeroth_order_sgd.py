"""Fine-tuning by forward passes alone: perturbations are replayed from seeds, never stored.

Malladi et al. (2023), "Fine-Tuning Language Models with Just Forward Passes" (MeZO), arXiv
2305.17333; low-rank perturbations as in Chen et al. (2024), "Enhancing Zeroth-order Fine-tuning
for Language Models with Low-rank Structures" (LOZO), arXiv 2410.07698.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, final

import numpy as np
import torch

from zo_bilevel.run.perturbations import PERTURBATIONS, Perturbations, fitting_radius
from zo_bilevel.run.weight_copies import losses_of_copies
from zo_bilevel.support.arguments import finite_number, one_of, whole_number
from zo_bilevel.support.errors import InputError

KEPT = ("radius", "num_directions", "perturbation", "rank", "refresh", "seed")
"""What decides the perturbations, part of the state dict beside the learning rate."""


def _one_number(loss: Any, *, tensor: bool = False) -> Any:  # noqa: ANN401
    """The loss as a scalar, a tensor on its device; only a tensor passes where one is needed."""
    if isinstance(loss, torch.Tensor):
        if loss.numel() == 1:
            return loss.reshape(())
        got = f"a tensor of shape {tuple(loss.shape)}"
    else:
        try:
            number = float(loss)
        except (TypeError, ValueError):
            got = repr(loss)
        else:
            if not tensor:
                return number
            got = f"{number}, which is no tensor: with module it must be one"
    raise InputError(f"closure must return one number, got {got}")


@final
class ZerothOrderSGD(torch.optim.Optimizer):
    """`w <- w - lr (1/b) sum_k (f(w + r z_k) - f(w - r z_k)) / 2r z_k`, in the memory of inference.

    Unbiased for the gradient as the radius r goes to 0, at `2 b` forward passes a step. The weights
    are perturbed in place and put back, also where the loss raises; or, where `module` is given,
    copied so that several directions go through it in one pass. Putting back rounds: weights in
    bfloat16 wander, by 8 % of their norm in 500 steps; copies do not. Training can go on from
    `state_dict()`, which holds every option but `module` and `chunk`.

    Args:
        params: Weights, as for any torch optimizer.
        lr: Learning rate, > 0.
        radius: r, > 0, or "auto": 1e-3, and more where the precision of the weights asks for it,
            as of bfloat16: four roundings of their root mean square.
        num_directions: b, >= 1.
        perturbation: "low_rank": `z = U V' / sqrt(rank)` for matrices, Gaussian for vectors, which
            costs little beside a forward pass and allows momentum; "rademacher": a sign a weight,
            drawn in a sixth of the time of "gaussian": MeZO.
        rank: Of low-rank perturbations, >= 1.
        refresh: Steps for which V stays as it is, >= 1.
        momentum: m in [0, 1), of low-rank perturbations; kept in U, a vector of size `rank` a row.
            It lasts while V does: over `refresh` = R steps a gradient that stays counts
            `(1 - m (1 - m^R) / (R (1 - m))) / (1 - m)` times, 8 of 10 at m = 0.9 and R = 50, and
            little more than once at R = 1.
        seed: Of the perturbations.
        module: What the closure calls and `params` belong to. With it, `chunk` directions share one
            call of the closure under `torch.func.vmap`, with the numbers of one at a time: faster
            where a pass does not fill the device, at the memory of `2 chunk` models and batches.
            Averages of batch normalization move once a step; without it, in each call.
        chunk: Directions in one pass, >= 1.

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
        radius: float | Literal["auto"] = "auto",
        num_directions: int = 1,
        perturbation: Literal["low_rank", "rademacher", "gaussian"] = "low_rank",
        rank: int = 2,
        refresh: int = 50,
        momentum: float = 0.0,
        seed: int = 0,
        module: torch.nn.Module | None = None,
        chunk: int = 1,
    ) -> None:
        if radius != "auto":
            finite_number("radius", radius, "> 0")
        counts = {
            "num_directions": num_directions,
            "rank": rank,
            "refresh": refresh,
            "chunk": chunk,
        }
        num_directions, rank, refresh, chunk = (
            whole_number(n, c, least=1) for n, c in counts.items()
        )
        one_of("perturbation", perturbation, PERTURBATIONS)
        if chunk > 1 and module is None:
            raise InputError(
                f"chunk > 1 needs module, the model that the closure calls; got {chunk}"
            )
        self.radius = 0.0  # until the weights are known
        self.num_directions, self.seed = num_directions, seed
        self.rank, self.refresh, self.perturbation = rank, refresh, perturbation
        self.module, self.chunk = module, chunk
        self._perturbations = Perturbations(perturbation, rank, refresh, seed)
        kept = {name: getattr(self, name) for name in KEPT}
        super().__init__(params, {"lr": lr, "momentum": momentum, "num_steps": 0, **kept})
        self.radius = fitting_radius(radius, [weight for _, weight, _ in self._weights()])
        for options in (self.defaults, *self.param_groups):
            options["radius"] = self.radius

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with options of their own.

        Raises:
            InputError: If an option breaks its rule, or a weight is complex.
        """
        super().add_param_group(param_group)
        added = self.param_groups.pop()
        finite_number("lr", added["lr"], "> 0")
        if not 0 <= added["momentum"] < 1:
            raise InputError(f"momentum must lie in [0, 1), got {added['momentum']}")
        if added["momentum"] and self.perturbation != "low_rank":
            raise InputError(
                "momentum needs low_rank perturbations: it would be as large as the weights"
            )
        for weight in added["params"]:
            if weight.is_complex():
                raise InputError(
                    f"params must be real, got a weight of {weight.dtype}; give its real view, "
                    "torch.nn.Parameter(torch.view_as_real(weight.detach())), which shares memory"
                )
        self.param_groups.append(added)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as the optimizer whose `state_dict()` it is, with its options and seed."""
        super().load_state_dict(state_dict)
        for name in KEPT:  # states of earlier versions have none
            setattr(self, name, self.param_groups[0].get(name, getattr(self, name)))
            for group in self.param_groups:
                group[name] = getattr(self, name)
        self._perturbations = Perturbations(self.perturbation, self.rank, self.refresh, self.seed)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]  # noqa: ANN401
        """One step.

        Args:
            closure: The loss of the present weights on one batch, a number or a tensor of one; it
                is called `2 b` times (with `module`, once a chunk; a tensor) without gradients, and
                must see the same batch each time. Numbers that it draws from torch, as for dropout,
                are the same in all calls of a step, on the CPU and on CUDA devices of the weights.

        Returns:
            Mean of the losses, an estimate of that at the weights before the step.

        Raises:
            InputError: If a loss is not one finite number; the weights are those before the step.
        """
        number = self.param_groups[0]["num_steps"]
        closure = self._replayed(closure)
        slopes: list[Any] = []
        total = 0.0
        moved: dict[torch.Tensor, list[torch.Tensor]] = {}
        for above, below in self._pairs(closure, number, moved):
            slopes.append((above - below) / (2.0 * self.radius * self.num_directions))
            total = total + (above + below) / (2.0 * self.num_directions)
        slopes = [float(slope) for slope in slopes]
        if not np.isfinite(slopes).all():
            raise InputError(f"closure must return finite losses, their mean is {float(total)}")
        for buffer, values in moved.items():
            ends = torch.cat(values)
            averaged = len(ends) > 1 and ends.is_floating_point()
            buffer.copy_(ends.mean(0) if averaged else ends[-1])
        self._descend(number, slopes)
        for group in self.param_groups:
            group["num_steps"] = number + 1
        return total

    def _replayed(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, whose calls all draw what the first of them does."""
        devices = {weight.device for _, weight, _ in self._weights() if weight.is_cuda}
        states = {device: torch.cuda.get_rng_state(device) for device in devices}
        state = torch.get_rng_state()

        def again() -> Any:  # noqa: ANN401
            torch.set_rng_state(state)
            for device in devices:
                torch.cuda.set_rng_state(states[device], device)
            return _one_number(closure(), tensor=self.module is not None)

        return again

    def _pairs(
        self, closure: Callable[[], Any], step: int, moved: dict[torch.Tensor, list[torch.Tensor]]
    ) -> Iterator[tuple[Any, Any]]:
        """Losses at both ends of each direction; values of the module's buffers go to `moved`."""
        if self.module is not None:
            for start in range(0, self.num_directions, self.chunk):
                chunk = range(start, min(start + self.chunk, self.num_directions))
                yield from self._together(self.module, closure, step, chunk, moved)
            return
        for direction in range(self.num_directions):
            ends, away = [], 0.0
            try:
                for distance in (self.radius, -2.0 * self.radius):
                    self._move(step, direction, distance)
                    away += distance
                    ends.append(closure())
            finally:
                self._move(step, direction, -away)
            yield ends[0], ends[1]

    def _together(
        self,
        module: torch.nn.Module,
        closure: Callable[[], Any],
        step: int,
        directions: range,
        moved: dict[torch.Tensor, list[torch.Tensor]],
    ) -> Any:  # noqa: ANN401
        """The same, through one pass with a copy of the weights for each end."""
        known = set(module.parameters())
        drawn = self._perturbations
        streams = [drawn.direction(step, k) for k in directions]
        copies: dict[torch.Tensor, torch.Tensor] = {}
        for place, weight, _ in self._weights():
            if weight not in known:
                shape = tuple(weight.shape)
                raise InputError(
                    f"params must belong to module, a weight of shape {shape} does not"
                )
            ends = weight.repeat(2 * len(directions), *[1] * weight.ndim)
            for k, draw in enumerate(streams):
                left = drawn.left(weight, draw)
                drawn.add(ends[2 * k], place, step, left, self.radius)
                drawn.add(ends[2 * k + 1], place, step, left, -self.radius)
            copies[weight] = ends
        if not copies:
            raise InputError("params must hold a weight that requires gradients, none does")
        losses, after = losses_of_copies(module, closure, copies)
        if losses.stride(0) == 0:  # one number, expanded
            raise InputError("closure must call module: its loss does not depend on the weights")
        for buffer, values in after.items():
            kept = moved.setdefault(buffer, [])
            if len(values) == 1:  # the same in all chunks: the last is enough
                kept.clear()
            kept.append(values)
        return losses.view(len(directions), 2)

    def _weights(self) -> Iterator[tuple[int, torch.Tensor, dict[str, Any]]]:
        pairs = ((w, group) for group in self.param_groups for w in group["params"])
        for place, (weight, group) in enumerate(pairs):
            if weight.requires_grad:
                yield place, weight, group

    def _move(self, step: int, direction: int, distance: float) -> None:
        """Add `distance z` to the weights, z drawn again from its seed."""
        drawn = self._perturbations
        draw = drawn.direction(step, direction)
        for place, weight, _ in self._weights():
            drawn.add(weight, place, step, drawn.left(weight, draw), distance)

    def _descend(self, step: int, slopes: list[float]) -> None:
        drawn = self._perturbations
        streams = [drawn.direction(step, direction) for direction in range(len(slopes))]
        for place, weight, group in self._weights():
            lefts = (drawn.left(weight, d).mul_(s) for s, d in zip(slopes, streams, strict=True))
            change = functools.reduce(torch.Tensor.add_, lefts)
            if group["momentum"] and weight.ndim > 1:  # kept in U
                before = self.state[weight].get("left")
                if before is not None:
                    change += group["momentum"] * drawn.carried(before, weight, place, step)
                self.state[weight]["left"] = change
            drawn.add(weight, place, step, change, -group["lr"])
