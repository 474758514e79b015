"""The inner solver as a torch operation, differentiated by the sketch of its forward round."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch

from zo_bilevel.estimators.base import GradientEstimate, GradientEstimator
from zo_bilevel.estimators.derivatives import ForwardDifferentiable
from zo_bilevel.estimators.fg2u import FG2U
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.run.layer_rounds import LayerRounds
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.support.errors import InputError, UnsupportedProblemError


@final
class BlackBox(torch.nn.Module):
    """A solver that can only be run, as a layer: `y = op(phi)`, and `y.backward()` works.

    The forward pass runs one round of solves, the base point and the probes of every row of the
    batch together, and keeps its sketch; the backward pass needs no solve:
    `grad_phi = (1/b) sum_k <grad_y, JV_k> u_k`, unbiased. Without gradients it is one solve a row.

    Args:
        inner: `inner(phi)` or `inner(phi, seed=seed)` with a float64 array of shape
            `(num_parameters,)`; returns a number, array, tensor, or dict of them, always alike.
        num_parameters: N, length of the last axis of the input, >= 1.
        estimator: Makes the sketch; default `FG2UZO()`; `FG2U()` if `inner` has a `jvp`.
        dispatcher: Runs the solves; default `Serial()`.
        name: Call `inner({name: phi})` instead, as adapters want it.
        scale: Typical size of phi, > 0: the estimator's radius is in this unit.
        seed: Seed of directions and solves. Every call draws anew; the count of calls is part of
            the state dict, so that a resumed training goes on with the same numbers.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> op = BlackBox(lambda phi: phi**2, num_parameters=3, estimator=FG2UZO(3))
        >>> phi = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> op(phi).sum().backward()
        >>> phi.grad.round(decimals=3)
        tensor([2., 4., 6.])
    """

    num_calls: torch.Tensor

    def __init__(
        self,
        inner: Callable[..., Any],
        num_parameters: int,
        estimator: GradientEstimator | None = None,
        *,
        dispatcher: Dispatcher | None = None,
        name: str | None = None,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not callable(inner):
            raise InputError(f"inner must be callable, got {type(inner).__name__}")
        if not isinstance(num_parameters, int) or num_parameters < 1:
            raise InputError(f"num_parameters must be a whole number >= 1, got {num_parameters!r}")
        if not 0 < scale < np.inf:
            raise InputError(f"scale must be finite and > 0, got {scale}")
        self.num_parameters = num_parameters
        if estimator is None:
            estimator = FG2U() if isinstance(inner, ForwardDifferentiable) else FG2UZO()
        if isinstance(estimator, FG2U):  # the outer gradient comes later, with backward
            estimator = dataclasses.replace(estimator, keep_tangents=True)
        self.estimator = estimator
        self._rounds = LayerRounds(inner, name, num_parameters, float(scale), seed, dispatcher)
        self._rounds.check(self.estimator)
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.int64))

    def forward(self, phi: torch.Tensor) -> Any:  # noqa: ANN401 - tensor or dict of tensors
        """Run the solver.

        Args:
            phi: Floating point, shape `(..., num_parameters)`.

        Returns:
            Shape `(..., *shape of theta)`, in the dtype and on the device of `phi`; a dict of
            such tensors if the solver returns a dict.

        Raises:
            InputError: If the last axis is wrong or the input is no floating-point tensor.
            InnerSolverError: If the solve at a row failed, or all its directions.
        """
        size = self.num_parameters
        if not phi.is_floating_point() or phi.ndim == 0 or phi.shape[-1] != size:
            raise InputError(
                f"phi must be floating point of shape (..., {size}), "
                f"got {phi.dtype} of shape {tuple(phi.shape)}"
            )
        rows = phi.detach().reshape(-1, size).cpu().double().numpy()
        call = int(self.num_calls)
        self.num_calls += 1
        if torch.is_grad_enabled() and phi.requires_grad:
            theta, layout, estimates = self._rounds.differentiated(rows, call, self.estimator)
            values = torch.from_numpy(theta).to(phi)
            apply: Any = _Sketched.apply  # torch leaves it untyped
            values = apply(phi, values, self._rounds, layout, estimates)
        else:
            theta, layout = self._rounds.plain(rows, call)
            values = torch.from_numpy(theta).to(phi)
        return layout_as_batch(values, layout, tuple(phi.shape[:-1]))

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"num_parameters={self.num_parameters}, estimator={self.estimator}"


def layout_as_batch(values: torch.Tensor, layout: ThetaLayout, batch: tuple[int, ...]) -> Any:  # noqa: ANN401
    """Give flat rows `(rows, m)` the structure of theta, with leading batch axes."""
    parts, start = [], 0
    for shape in layout.shapes:
        stop = start + int(np.prod(shape))
        parts.append(values[:, start:stop].reshape((*batch, *shape)))
        start = stop
    return dict(zip(layout.names, parts, strict=True)) if layout.names else parts[0]


class _Sketched(torch.autograd.Function):
    """Passes theta on; pulls a gradient back through the sketches."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        phi: torch.Tensor,
        values: torch.Tensor,
        rounds: LayerRounds,
        layout: ThetaLayout,
        estimates: list[GradientEstimate],
    ) -> torch.Tensor:
        ctx.save_for_backward(phi)
        ctx.parts = (rounds, layout, estimates)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:  # noqa: ANN401 - torch's context
        (phi,) = ctx.saved_tensors
        rounds, layout, estimates = ctx.parts
        cotangents = grads[0].detach().cpu().double().numpy()
        pulled = [rounds.pull(e, layout, c) for e, c in zip(estimates, cotangents, strict=True)]
        gradient = torch.from_numpy(np.stack(pulled)).to(phi).reshape(phi.shape)
        refuse_second: Any = _FirstDerivative.apply  # torch leaves it untyped
        return refuse_second(gradient, phi, grads[0]), None, None, None, None


class _FirstDerivative(torch.autograd.Function):
    """Passes a gradient on and refuses to be differentiated."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401, ARG004 - torch's context
        gradient: torch.Tensor,
        phi: torch.Tensor,  # noqa: ARG004 - ties the gradient to what it depends on
        cotangent: torch.Tensor,  # noqa: ARG004
    ) -> torch.Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:  # noqa: ANN401, ARG004
        raise UnsupportedProblemError(
            "BlackBox has first derivatives only: its sketch knows nothing of second ones; call "
            "backward or torch.autograd.grad without create_graph=True, or detach its gradient"
        )
