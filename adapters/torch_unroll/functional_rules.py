"""Updates of torch's optimizers in functional form, with settings that may depend on phi."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, final

import torch

from zo_bilevel.adapters.torch_unroll.run import Phi
from zo_bilevel.support.errors import InputError, unknown_name_message

Weights: TypeAlias = dict[str, torch.Tensor]
Moments: TypeAlias = dict[str, Weights]
Setting: TypeAlias = "float | str | Callable[[Phi, int], Any]"
"""A number, the name of a parameter in phi, or `f(phi, t)`: a number for all weights, or a dict
with a number for each weight by name."""


def settings_for(
    setting: Setting, phi: Phi, t: int, weights: Weights, sign: float = 1.0
) -> dict[str, Any]:
    """The values of a setting for all weights at one step: a number or tensor by name.

    Raises:
        InputError: If phi has no such name, or a dict of the user's lacks a weight.
    """
    value: Any = setting
    if isinstance(setting, str):
        if setting not in phi:
            raise InputError(unknown_name_message("parameter", setting, phi))
        value = phi[setting]
    elif callable(setting):
        value = setting(phi, t)
    if not isinstance(value, Mapping):
        return dict.fromkeys(weights, value if sign == 1.0 else -value)
    for weight in weights:
        if weight not in value:
            raise InputError(unknown_name_message("weight", weight, value))
    return {name: value[name] if sign == 1.0 else -value[name] for name in weights}


def plus(base: torch.Tensor, factor: Any, change: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """`base + factor change`.

    With a plain number as an argument of the addition, not as a factor of its own: forward mode
    would give a factor a tangent of zeros, whose products cost more than the rest of the update.
    """
    if isinstance(factor, int | float):
        return base if factor == 0 else torch.add(base, change, alpha=factor)
    moved: torch.Tensor = base + factor * change
    return moved


def _shifted(base: torch.Tensor, number: float) -> torch.Tensor:
    """`base + number`, for the same reason without a tangent of zeros."""
    found: torch.Tensor = torch.ops.aten.add.Scalar(base, number)
    return found


class Rule(Protocol):
    """An optimizer's update in functional form."""

    def moments(self, weights: Weights) -> Moments:
        """What it remembers, at the start."""
        ...

    def update(
        self, weights: Weights, moments: Moments, gradient: Weights, phi: Phi, t: int
    ) -> tuple[Weights, Moments]:
        """The next weights and what it remembers."""
        ...


@final
@dataclass(frozen=True, slots=True)
class FunctionalSGD:
    """`torch.optim.SGD`: `v <- momentum v + g + decay w`, `w <- w - rate v`.

    Args:
        learning_rate: Rate.
        momentum: In [0, 1); 0 remembers nothing.
        weight_decay: Times the weights, added to the gradient.
    """

    learning_rate: Setting = 0.1
    momentum: Setting = 0.0
    weight_decay: Setting = 0.0

    def moments(self, weights: Weights) -> Moments:
        """Velocities of zero, or none without momentum."""
        if self.momentum == 0.0:
            return {}
        return {"velocity": {name: torch.zeros_like(w) for name, w in weights.items()}}

    def update(
        self, weights: Weights, moments: Moments, gradient: Weights, phi: Phi, t: int
    ) -> tuple[Weights, Moments]:
        """One step."""
        after, velocity = {}, {}
        decay = settings_for(self.weight_decay, phi, t, weights)
        momentum = settings_for(self.momentum, phi, t, weights)
        backward = settings_for(self.learning_rate, phi, t, weights, -1.0)
        for name, w in weights.items():
            v = plus(gradient[name], decay[name], w)
            if moments:
                v = plus(v, momentum[name], moments["velocity"][name])
                velocity[name] = v
            after[name] = plus(w, backward[name], v)
        return after, {"velocity": velocity} if moments else {}


@final
@dataclass(frozen=True, slots=True)
class FunctionalAdam:
    """`torch.optim.AdamW` (decay apart from the gradient; 0 is Adam).

    Args:
        learning_rate: Rate.
        betas: Decay of the two moments.
        eps: Added to the square root; kept inside it too, so that the derivative at a gradient
            of zero is finite.
        weight_decay: Times rate and weights, taken off the weights.

    Source:
        Kingma and Ba (2015), arXiv 1412.6980, Algorithm 1.
    """

    learning_rate: Setting = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: Setting = 0.0

    def moments(self, weights: Weights) -> Moments:
        """Two moments of zero."""
        return {
            key: {name: torch.zeros_like(w) for name, w in weights.items()}
            for key in ("first", "second")
        }

    def update(
        self, weights: Weights, moments: Moments, gradient: Weights, phi: Phi, t: int
    ) -> tuple[Weights, Moments]:
        """One step."""
        beta1, beta2 = self.betas
        after: Weights = {}
        kept: Moments = {"first": {}, "second": {}}
        unbiased = 1 - beta2 ** (t + 1)
        backward = settings_for(self.learning_rate, phi, t, weights, -1.0)
        decay = settings_for(self.weight_decay, phi, t, weights)
        for name, w in weights.items():
            g = gradient[name]
            first = torch.lerp(moments["first"][name], g, 1 - beta1)
            second = torch.lerp(moments["second"][name], torch.square(g), 1 - beta2)
            kept["first"][name], kept["second"][name] = first, second
            # both corrections of Algorithm 1 in one factor, as at the end of its section 2
            root = torch.sqrt(_shifted(second, unbiased * self.eps**2))
            scale = _shifted(root, math.sqrt(unbiased) * self.eps)
            decayed = plus(w, backward[name] * decay[name], w)
            factor = backward[name] * (math.sqrt(unbiased) / (1 - beta1 ** (t + 1)))
            after[name] = plus(decayed, factor, first / scale)
        return after, kept
