"""Updates of torch's optimizers in functional form, with settings that may depend on phi."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, final

import torch

from zo_bilevel.adapters.torch_unroll.run import Phi
from zo_bilevel.support.arguments import finite_number
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
        InputError: If phi has no such name, or a dict of the user's has other names than the
            weights.
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
    if missing := [weight for weight in weights if weight not in value]:
        raise InputError(f"a setting by weight must give every weight, got none for {missing}")
    if extra := [name for name in value if name not in weights]:
        raise InputError("setting: " + unknown_name_message("weight", extra[0], weights))
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


def _shifted(base: torch.Tensor, number: Any) -> torch.Tensor:  # noqa: ANN401
    """`base + number`, for the same reason without a tangent of zeros where it is plain."""
    plain = isinstance(number, int | float)
    found: torch.Tensor = torch.ops.aten.add.Scalar(base, number) if plain else base + number
    return found


def _check(is_share: bool = False, **settings: Setting) -> None:
    """Refuse plain numbers that are negative, or of a share not below 1; `InputError` by name."""
    for name, value in settings.items():
        if isinstance(value, int | float):
            finite_number(name, value, ">= 0")
            if is_share and value >= 1:
                raise InputError(f"{name} must lie in [0, 1), got {value}")


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

    Raises:
        InputError: If a number is negative, or the momentum not below 1.
    """

    learning_rate: Setting = 0.1
    momentum: Setting = 0.0
    weight_decay: Setting = 0.0

    def __post_init__(self) -> None:
        _check(learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        _check(is_share=True, momentum=self.momentum)

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
        betas: Decay of the two moments, in [0, 1).
        eps: Added to the square root; kept inside it too, so that the derivative at a gradient
            of zero is finite.
        weight_decay: Times rate and weights, taken off the weights.

    Raises:
        InputError: If a number is negative, or a decay not below 1.

    Source:
        Kingma and Ba (2015), arXiv 1412.6980, Algorithm 1.
    """

    learning_rate: Setting = 1e-3
    betas: tuple[Setting, Setting] = (0.9, 0.999)
    eps: Setting = 1e-8
    weight_decay: Setting = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise InputError(f"betas must be two settings, got {self.betas!r}")
        _check(learning_rate=self.learning_rate, weight_decay=self.weight_decay, eps=self.eps)
        for beta in self.betas:
            _check(is_share=True, betas=beta)

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
        beta1s, beta2s = (settings_for(beta, phi, t, weights) for beta in self.betas)
        epsilons = settings_for(self.eps, phi, t, weights)
        after: Weights = {}
        kept: Moments = {"first": {}, "second": {}}
        backward = settings_for(self.learning_rate, phi, t, weights, -1.0)
        decay = settings_for(self.weight_decay, phi, t, weights)
        for name, w in weights.items():
            g, beta1, beta2, eps = gradient[name], beta1s[name], beta2s[name], epsilons[name]
            unbiased = 1 - beta2 ** (t + 1)
            first = torch.lerp(moments["first"][name], g, 1 - beta1)
            second = torch.lerp(moments["second"][name], torch.square(g), 1 - beta2)
            kept["first"][name], kept["second"][name] = first, second
            # both corrections of Algorithm 1 in one factor, as at the end of its section 2
            root = torch.sqrt(_shifted(second, unbiased * eps**2))
            scale = _shifted(root, unbiased**0.5 * eps)
            decayed = plus(w, backward[name] * decay[name], w)
            factor = backward[name] * (unbiased**0.5 / (1 - beta1 ** (t + 1)))
            after[name] = plus(decayed, factor, first / scale)
        return after, kept
