"""A training loop in functional form: `init` and `step` for `TorchUnroll` from an `nn.Module`."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, final

import torch
from torch.autograd import forward_ad as _forward_ad

from zo_bilevel.adapters.torch_unroll.functional_module import FunctionalModule
from zo_bilevel.adapters.torch_unroll.functional_rules import (
    FunctionalAdam,
    FunctionalSGD,
    Moments,
    Rule,
    Setting,
    Weights,
)
from zo_bilevel.adapters.torch_unroll.run import Phi
from zo_bilevel.adapters.torch_unroll.state import seeded_generators
from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll
from zo_bilevel.support.errors import InputError

forward_ad: Any = _forward_ad  # torch leaves it untyped
__all__ = [
    "FunctionalAdam",
    "FunctionalSGD",
    "FunctionalTraining",
    "Moments",
    "Rule",
    "Setting",
    "Weights",
    "minibatches",
]

Model: TypeAlias = Callable[..., Any]

_TRIED: weakref.WeakSet[FunctionalTraining] = weakref.WeakSet()
"""Trainings of which this process has made a step; kept apart, since stores hash their parts."""

RESET_PROBE_SHIFT = 0.3725
"""Added to weights to see whether a reset reaches them; no reset gives exactly that."""


@final
class FunctionalTraining:
    """Training of a module as a differentiable inner loop.

    The state is `{"weights": {...}, "moments": {...}}`; the inner solution is the weights.

    Args:
        module: The network; its weights are never written to.
        loss: `loss(model, batch, phi) -> scalar`, with `model` called like the module.
        rule: `FunctionalSGD` or `FunctionalAdam`; default SGD.
        fresh: Draw new weights for each seed with the parts' `reset_parameters` (or
            `_reset_parameters`), instead of starting at the module's own.

    Raises:
        InputError: If the module has no trainable weight, or keeps running statistics, which a
            functional step would have to write in place, or `fresh` would leave a weight as it
            is.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> inputs, targets = torch.randn(8, 2), torch.randn(8, 1)
        >>> def loss(model, batch, phi):
        ...     return ((model(inputs) - targets) ** 2).mean()
        >>> training = FunctionalTraining(torch.nn.Linear(2, 1), loss, FunctionalSGD("rate"))
        >>> sorted(training.unroll(3)({"rate": 0.1}))
        ['bias', 'weight']
    """

    def __init__(
        self,
        module: torch.nn.Module,
        loss: Callable[[Model, Any, Phi], torch.Tensor],
        rule: Rule | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        self.module = module
        self.loss = loss
        self.rule: Rule = FunctionalSGD() if rule is None else rule
        self.fresh = fresh
        self.names = [name for name, w in module.named_parameters() if w.requires_grad]
        if not self.names:
            raise InputError("module must have a trainable weight, got none")
        self._call = FunctionalModule(module, self.names)
        for name, part in module.named_modules():
            if part.training and getattr(part, "track_running_stats", False):
                raise InputError(
                    f"module part {name!r} keeps running statistics, which it writes in place; "
                    "use track_running_stats=False or GroupNorm, or put it into eval mode"
                )
        if fresh:
            self._check_redrawn()

    def model(self, weights: Mapping[str, torch.Tensor]) -> Model:
        """The module with these weights, to be called like the module.

        Args:
            weights: By name, as in the inner solution.
        """
        return functools.partial(self._call, weights)

    def init(self, phi: Phi, seed: int = 0) -> dict[str, Any]:  # noqa: ARG002 - the signature of init
        """Weights and moments before the first step."""
        weights = {name: self.module.get_parameter(name).detach() for name in self.names}
        if self.fresh:
            weights = self.fresh_weights(seed)
        return {"weights": weights, "moments": self.rule.moments(weights)}

    def fresh_weights(self, seed: int) -> Weights:
        """New weights, the same for the same seed."""
        return self._redrawn(copy.deepcopy(self.module), seed)

    def _redrawn(self, module: torch.nn.Module, seed: int) -> Weights:
        with seeded_generators(seed, next(module.parameters()).device):
            for part in _inner_first(module, set()):
                reset = getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))
                if callable(reset):
                    reset()
        return {name: module.get_parameter(name).detach() for name in self.names}

    def _check_redrawn(self) -> None:
        """A weight is left out if it keeps a shift that no reset would give it."""
        shifted = copy.deepcopy(self.module)
        with torch.no_grad():
            for name in self.names:
                shifted.get_parameter(name).add_(RESET_PROBE_SHIFT)
        before = {name: shifted.get_parameter(name).detach().clone() for name in self.names}
        after = self._redrawn(shifted, seed=0)
        left = [name for name in self.names if torch.equal(before[name], after[name])]
        if left:
            more = f" and {len(left) - 4} more" if len(left) > 4 else ""
            raise InputError(
                f"fresh must redraw every trainable weight, but {', '.join(map(repr, left[:4]))}"
                f"{more} would stay: no reset_parameters of the module's parts reaches them; add "
                "one, freeze them (requires_grad_(False)), or use fresh=False"
            )

    def step(self, theta: dict[str, Any], phi: Phi, t: int, batch: Any) -> dict[str, Any]:  # noqa: ANN401
        """One step of the rule on one batch."""

        def loss(weights: Weights) -> torch.Tensor:
            return self.loss(self.model(weights), batch, phi)

        if self in _TRIED:
            gradient = gradient_of(loss, theta["weights"])
        else:  # torch.func.grad refuses modules that write into what they keep
            gradient = torch.func.grad(loss)(theta["weights"])
            _TRIED.add(self)
        weights, moments = self.rule.update(theta["weights"], theta["moments"], gradient, phi, t)
        return {"weights": weights, "moments": moments}

    def unroll(self, num_steps: int, **options: Any) -> TorchUnroll:  # noqa: ANN401 - passed through
        """The loop.

        Args:
            num_steps: Steps T.
            **options: Passed to `TorchUnroll`; `read` defaults to the weights, `dtype` to theirs.

        Returns:
            An inner solver.
        """
        weight = next(self.module.parameters())
        defaults = {"read": _weights, "dtype": weight.dtype, "device": str(weight.device)}
        return TorchUnroll(self.init, self.step, num_steps, **{**defaults, **options})


def gradient_of(loss: Callable[[Weights], torch.Tensor], weights: Weights) -> Weights:
    """The gradient inside a step: `torch.func.grad`, or plain autograd where that is enough.

    Outside of forward mode and `vmap` the two give the same numbers, and autograd spends 0.6 times
    the time on small networks. The graph goes on from weights that are part of one. With dual
    numbers the one that reverse mode begins with has a tangent of real zeros: torch's own zeros run
    through Python.
    """
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    found: Weights
    if forward_ad._current_level >= 0 and not transformed:
        vjp: Any = torch.func.vjp  # its annotation takes any has_aux
        value, pull = vjp(loss, weights)
        (found,) = pull(forward_ad.make_dual(value.new_ones(()), value.new_zeros(())))
        return found
    if transformed or torch.is_inference_mode_enabled():
        found = torch.func.grad(loss)(weights)
        return found
    keeps_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = {
            name: w if keeps_graph and w.requires_grad else w.detach().requires_grad_()
            for name, w in weights.items()
        }
        value = loss(leaves)
        if not value.requires_grad:
            return {name: torch.zeros_like(w) for name, w in weights.items()}
        grads = torch.autograd.grad(
            value, list(leaves.values()), create_graph=keeps_graph, materialize_grads=True
        )
    return dict(zip(leaves, grads, strict=True))


def _inner_first(module: torch.nn.Module, seen: set[int]) -> Iterator[torch.nn.Module]:
    """Every part once, after its own parts: the reset of the whole has the last word."""
    if id(module) in seen:
        return
    seen.add(id(module))
    for child in module.children():
        yield from _inner_first(child, seen)
    yield module


def _weights(theta: dict[str, Any], phi: Phi) -> Weights:  # noqa: ARG001 - the signature of read
    weights: Weights = theta["weights"]
    return weights


def minibatches(
    *arrays: torch.Tensor, size: int
) -> Callable[[int, torch.Generator], tuple[torch.Tensor, ...]]:
    """Random mini-batches without replacement, for `TorchUnroll(batches=...)`.

    Args:
        *arrays: Tensors of one first axis.
        size: Rows a batch.

    Returns:
        A function of the step and a generator.

    Raises:
        InputError: If first axes differ, or the size is none of a batch.
    """
    totals = [len(array) for array in arrays]
    if len(set(totals)) != 1:
        raise InputError(f"arrays must have one first axis, got lengths {totals}")
    total = totals[0]
    if not 1 <= size <= total:
        raise InputError(f"size must lie in [1, {total}], got {size}")

    def batch(t: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:  # noqa: ARG001
        rows = torch.randperm(total, generator=generator)[:size].to(arrays[0].device)
        return tuple(array[rows] for array in arrays)

    return batch
