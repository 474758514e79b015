"""The inner solver as a torch operation, differentiated by the sketch of its forward round."""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, final

import numpy as np
import torch

from zo_bilevel.estimators.base import GradientEstimator
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.run.layer_solver import LayerSolver, SolvedRows, first_error
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.support.arguments import finite_number, one_of, whole_number
from zo_bilevel.support.errors import InputError, UnsupportedProblemError
from zo_bilevel.support.replay import position

CALLS_REMEMBERED = 4096
"""Calls whose inputs are remembered, to know them again when activations are recomputed."""


@final
class BlackBox(torch.nn.Module):
    """A solver that can only be run, as a layer: `y = op(phi)`, and `y.backward()` works.

    The forward pass runs one round of solves, the base point and the probes of every row of the
    batch together, and keeps its sketch; the backward pass needs no solve:
    `grad_phi = (1/b) sum_k <grad_y, JV_k> u_k`, unbiased. Without gradients it is one solve a row.
    Forward mode, `torch.func.grad`, `jvp`, `vmap`, `jacrev` and activation checkpointing work;
    second derivatives are refused.

    Args:
        inner: `inner(phi)` or `inner(phi, seed=seed)` with a float64 array of shape
            `(num_parameters,)`; returns a number, array, tensor, or dict of them, always alike.
        num_parameters: N, length of the last axis of the input, >= 1.
        estimator: Makes the sketch; default `FG2UZO()`, its radius that of the solver's
            precision; `FG2U()` if `inner` has a `jvp`.
        dispatcher: Runs the solves; default `Serial()`.
        name: Call `inner({name: phi})` instead, as adapters want it.
        scale: Typical size of phi, > 0: the estimator's radius is in this unit.
        seed: Seed of directions and solves. Every call draws anew; the count of calls is part of
            the state dict, so that a resumed training goes on with the same numbers. Recomputed
            activations, and steps of a `TorchUnroll`, draw what they drew before.
        on_failure: "raise", or "zero": a row whose solve fails is zero and has no gradient;
            `failed_rows` tells which rows of the last call, `num_failed` counts them all. A probe
            that fails is solved the other way; a row fails if that fails too.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> from zo_bilevel.estimators.fg2u_zo import FG2UZO
        >>> op = BlackBox(lambda phi: phi**2, num_parameters=3, estimator=FG2UZO(3))
        >>> phi = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> op(phi).sum().backward()
        >>> phi.grad.round(decimals=3)
        tensor([2., 4., 6.])
    """

    num_calls: torch.Tensor
    num_failed: torch.Tensor

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
        on_failure: Literal["raise", "zero"] = "raise",
    ) -> None:
        super().__init__()
        if not callable(inner):
            raise InputError(f"inner must be callable, got {type(inner).__name__}")
        self.num_parameters = whole_number("num_parameters", num_parameters, least=1)
        scale = finite_number("scale", scale, "> 0")
        self.on_failure = one_of("on_failure", on_failure, ("raise", "zero"))
        self.failed_rows: list[int] = []
        self._solver = LayerSolver(
            inner, name, self.num_parameters, estimator, scale, seed, dispatcher
        )
        self._recent: deque[tuple[bytes, int]] = deque(maxlen=CALLS_REMEMBERED)
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("num_failed", torch.zeros((), dtype=torch.int64))

    @property
    def estimator(self) -> GradientEstimator:
        """Makes the sketch."""
        return self._solver.estimator

    # solves are no tensor operations: torch.compile breaks its graph once, around them
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, phi: torch.Tensor) -> Any:  # noqa: ANN401 - tensor or dict of tensors
        """Run the solver.

        Args:
            phi: Floating point, shape `(..., num_parameters)`.

        Returns:
            Shape `(..., *shape of theta)`, in the dtype and on the device of `phi`; a dict of
            such tensors if the solver returns a dict.

        Raises:
            InputError: If the last axis is wrong or the input is no floating-point tensor.
            InnerSolverError: If the solve at a row failed, or a direction both ways, unless
                failures are zeros.
        """
        size = self.num_parameters
        if not isinstance(phi, torch.Tensor):
            raise InputError(f"phi must be a torch tensor, got {type(phi).__name__}")
        if not phi.is_floating_point() or phi.ndim == 0 or phi.shape[-1] != size:
            raise InputError(
                f"phi must be floating point of shape (..., {size}), "
                f"got {phi.dtype} of shape {tuple(phi.shape)}"
            )
        apply: Any = _Solved.apply  # torch leaves it untyped
        values = apply(phi, self, _is_tracked(phi))[0]
        layout = self._solver.layout
        assert layout is not None  # noqa: S101 - something was solved
        return layout_as_batch(values, layout, tuple(phi.shape[:-1]))

    def solved(self, phi: torch.Tensor, with_sketch: bool) -> tuple[torch.Tensor, ...]:
        """Theta `(..., m)`, and for derivatives JV `(..., m, b)` and U `(..., N, b)`.

        Args:
            phi: A plain tensor, shape `(..., num_parameters)`.
            with_sketch: Whether derivatives will be wanted.
        """
        batch = tuple(phi.shape[:-1])
        rows = phi.detach().reshape(-1, self.num_parameters).cpu().double().numpy()
        if not len(rows) and self._solver.layout is None:
            self._learn_shape()
        found = self._run(rows, with_sketch)
        self.failed_rows = sorted(found.errors)
        if found.errors:
            if self.on_failure == "raise" or self._solver.layout is None:
                raise first_error(found)
            self.num_failed += len(found.errors)
        # derivatives stay in double precision: they are sums of products still to come
        theta = torch.from_numpy(found.theta).to(phi).reshape(*batch, found.theta.shape[1])
        JV, U = (torch.from_numpy(part).to(phi.device) for part in (found.JV, found.U))
        return theta, JV.reshape(*batch, *JV.shape[1:]), U.reshape(*batch, *U.shape[1:])

    def _run(self, rows: np.ndarray[Any, Any], with_sketch: bool) -> SolvedRows:
        key = self._key(rows)
        run = self._solver.differentiated if with_sketch else self._solver.plain
        return run(rows, key)

    def _key(self, rows: np.ndarray[Any, Any]) -> tuple[int, ...]:
        """Which draw this is: a new one, or one that is made again."""
        if (place := position()) is not None:
            return place.next()
        digest = hashlib.blake2b(rows.tobytes(), digest_size=16).digest()
        if torch._C._current_graph_task_id() != -1:  # in a backward pass: recomputed activations
            known = [call for seen, call in self._recent if seen == digest]
            if known:
                return (known[-1],)
        call = int(self.num_calls)
        self.num_calls += 1
        self._recent.append((digest, call))
        return (call,)

    def _learn_shape(self) -> None:
        found = self._solver.plain(np.zeros((1, self.num_parameters)), (0,))
        if found.errors:
            raise InputError(
                "phi has no rows, and the solver's shape is not known yet: the solve at zero "
                f"failed ({found.errors[0]})"
            )

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"num_parameters={self.num_parameters}, estimator={self.estimator}"


def _is_tracked(phi: torch.Tensor) -> bool:
    """Whether a derivative in phi may be asked for, by autograd or by torch.func."""
    if torch.is_grad_enabled() and phi.requires_grad:
        return True
    functorch = torch._C._functorch
    part: Any = phi
    while functorch.is_functorch_wrapped_tensor(part):
        if functorch.is_gradtrackingtensor(part):
            return True
        part = functorch.get_unwrapped(part)
    unpack: Any = torch.autograd.forward_ad.unpack_dual  # torch leaves it untyped
    return unpack(phi).tangent is not None


def layout_as_batch(values: torch.Tensor, layout: ThetaLayout, batch: tuple[int, ...]) -> Any:  # noqa: ANN401
    """Give flat rows `(..., m)` the structure of theta, with leading batch axes."""
    parts, start = [], 0
    for shape in layout.shapes:
        stop = start + int(np.prod(shape))
        parts.append(values[..., start:stop].reshape((*batch, *shape)))
        start = stop
    return dict(zip(layout.names, parts, strict=True)) if layout.names else parts[0]


class _Solved(torch.autograd.Function):
    """Solves; pulls a gradient back through the sketches, pushes a tangent forward."""

    @staticmethod
    def forward(phi: torch.Tensor, layer: BlackBox, with_sketch: bool) -> tuple[torch.Tensor, ...]:
        return layer.solved(phi, with_sketch)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ANN401 - torch's
        _, JV, U = output
        ctx.mark_non_differentiable(JV, U)
        ctx.save_for_backward(inputs[0], JV, U)
        ctx.save_for_forward(inputs[0], JV, U)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # noqa: ANN401 - torch's context
        phi, JV, U = ctx.saved_tensors
        slopes = grads[0].double().unsqueeze(-2) @ JV  # not by einsum: torch cannot batch it here
        gradient = (slopes @ U.mT).squeeze(-2).to(phi.dtype)
        refuse_second: Any = _FirstDerivative.apply  # torch leaves it untyped
        return refuse_second(gradient, phi, grads[0]), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:  # noqa: ANN401 - torch's context
        phi, JV, U = ctx.saved_tensors
        along = tangents[0].double().unsqueeze(-2) @ U
        pushed = (along @ JV.mT).squeeze(-2).to(phi.dtype)
        refuse_second: Any = _FirstDerivative.apply
        return refuse_second(pushed, phi, tangents[0]), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, phi: Any, layer: BlackBox, with_sketch: bool) -> Any:  # noqa: ANN401, ARG004
        apply: Any = _Solved.apply
        return apply(phi.movedim(in_dims[0], 0), layer, with_sketch), (0, 0, 0)


class _FirstDerivative(torch.autograd.Function):
    """Passes a gradient on and refuses to be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        gradient: torch.Tensor,
        phi: torch.Tensor,  # noqa: ARG004 - ties the gradient to what it depends on
        cotangent: torch.Tensor,  # noqa: ARG004
    ) -> torch.Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ANN401 - torch's
        pass

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:  # noqa: ANN401, ARG004
        _refuse_second()

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:  # noqa: ANN401, ARG004
        _refuse_second()


def _refuse_second() -> None:
    raise UnsupportedProblemError(
        "BlackBox has first derivatives only: its sketch knows nothing of second ones; call "
        "backward or torch.autograd.grad without create_graph=True, or detach its gradient"
    )
