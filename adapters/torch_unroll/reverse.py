"""Reverse mode through a loop: all of it (RGU), its last steps (TRGU), or its end (implicit).

`g = sum_t (df/dtheta_T) A_T ... A_{t+1} B_t`; the truncated sum keeps the last terms, the
implicit one puts `A_T` and `B_T` in place of every `A_t` and `B_t` (arXiv 2406.14095, section 2).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch

from zo_bilevel.adapters.torch_unroll.checkpointed import Grads, Tape, added, pieces_for, pulled
from zo_bilevel.adapters.torch_unroll.checks import check_finite, refuse_unreached
from zo_bilevel.adapters.torch_unroll.leaves import Leaves, leave
from zo_bilevel.adapters.torch_unroll.linear_systems import Solver, Vector, norm, plus, solved
from zo_bilevel.adapters.torch_unroll.lost_derivatives import refusing_no_grad
from zo_bilevel.adapters.torch_unroll.run import Phi, Run
from zo_bilevel.support.errors import InvalidSolutionError

Cotangent: TypeAlias = Callable[[Any], Any]

WHOLE = "the inner loop"
MAX_DISTANCE = 1e-3
"""Of the end of a loop from where its last step leads, relative to its size."""
MIN_MOVE = 10.0
"""Roundings: an end that a step moves by less has converged."""
MIN_STEP = 100.0
"""Roundings: what the last step changes by less is not told from nothing."""


@refusing_no_grad
def pull_trajectory(
    run: Run, cotangent: Cotangent, last_steps: int | None, memory: int | str
) -> tuple[Any, dict[str, Any]]:
    """Back through the steps as they were taken: the inner solution and the gradient by name.

    Args:
        run: The run.
        cotangent: From the inner solution to the gradient in it, flat `(m,)`.
        last_steps: How many; `None` or at least T is all of them and `init`.
        memory: "all", "sqrt" or bytes, for the whole trajectory.

    Raises:
        InputError: If those steps do not depend on a parameter, compute within `torch.no_grad()`,
            or memory is too little.
    """
    total = run.loop.num_steps
    last = total if last_steps is None else min(last_steps, total)
    leaves, phi = _differentiable(run)
    if memory != "all" and last == total and (found := _in_pieces(run, cotangent, leaves, memory)):
        return found
    with run.random(), torch.no_grad():
        with torch.set_grad_enabled(last == total):
            theta = run.initial(phi)
        for t in range(total):
            with torch.set_grad_enabled(t >= total - last):
                theta = run.next(theta, phi, t, run.batch(t))
        with torch.enable_grad():
            seen = run.observed(theta, phi)
    check_finite(run, seen)
    what = WHOLE if last == total else f"the end of the loop (its last {last} steps)"
    grads = pulled(seen, _split(cotangent, seen), list(leaves.values()), keep=False)
    return leave(seen.detached().tree, "read"), _named(run, leaves, grads, what)


def _in_pieces(
    run: Run, cotangent: Cotangent, leaves: dict[str, torch.Tensor], memory: int | str
) -> tuple[Any, dict[str, Any]] | None:
    """Back through all steps with few states kept; `None` when memory is enough for all."""
    phi = {**run.phi, **leaves}
    with run.random():
        with torch.enable_grad():
            begin = run.initial(phi)
        pieces = pieces_for(run, begin.detached(), phi, memory)
        if not pieces:
            return None
        tape = Tape(run, phi, leaves, pieces)
        end, kept = tape.forward(begin.detached(), 0, run.loop.num_steps, pieces[0])
        end, seen = _observed_apart(run, end, phi)
        check_finite(run, seen)
        count = len(end.moving)
        grads = pulled(seen, _split(cotangent, seen), [*end.moving, *tape.inputs])
        tape.add(grads[count:])
        grads = tape.backward(kept, run.loop.num_steps, grads[:count])
        tape.add(pulled(begin, grads, tape.inputs))
    return leave(seen.detached().tree, "read"), _named(run, leaves, tape.found, WHOLE)


def _observed_apart(run: Run, end: Leaves, phi: Phi) -> tuple[Leaves, Leaves]:
    """The last state as a leaf of its own graph, and what is read of it."""
    with torch.enable_grad():
        apart = end.with_leaves([leaf.detach().requires_grad_() for leaf in end.moving])
        return apart, run.observed(apart, phi)


@refusing_no_grad
def pull_fixed_point(
    run: Run,
    cotangent: Cotangent,
    terms: int | Literal["auto"],
    tolerance: float,
    solver: Solver,
) -> tuple[Any, dict[str, Any]]:
    """Through the last step as a fixed-point map: `B' (I - A')^-1`.

    For gradient descent, `A = I - rate H`: the implicit function theorem.

    Args:
        run: The run.
        cotangent: From the inner solution to the gradient in it, flat `(m,)`.
        terms: Products with `A'`, >= 1, at the most, or "auto".
        tolerance: Relative residual at which to stop, >= 0.
        solver: "neumann", "conjugate_gradient" or "gmres".

    Returns:
        The inner solution and the gradient by name.

    Raises:
        InputError: If the step does not depend on a parameter.
        InvalidSolutionError: If the last step is the identity, the series diverges, or the system
            is singular or not what the solver needs.
    """
    leaves, phi = _differentiable(run)
    last = run.loop.num_steps - 1
    with run.random(), torch.no_grad():
        theta = run.initial(phi)
        for t in range(run.loop.num_steps):
            before, theta = theta, run.next(theta, phi, t, run.batch(t))
        end, found = _observed_apart(run, theta, phi)
        with torch.enable_grad():
            after = run.next(end, phi, last, run.batch(last))
        if tolerance > 0:
            ends = [run.observed(one.detached(), phi) for one in (before, theta, after)]
            _say_how_far_the_end_is(*ends)
    check_finite(run, found)
    # the gradient in theta_T and, if `read` looks at phi, directly in phi
    direct = pulled(found, _split(cotangent, found), [*end.moving, *leaves.values()])
    count = len(end.moving)

    def product(u: Vector) -> Vector:
        return plus(u, -1.0, _or_zeros(pulled(after, [*u], end.moving), end.moving))

    w = _or_zeros(direct[:count], end.moving)
    _refuse_no_step(product(w), w, last)
    (u,) = solved(solver, product, [w], terms, tolerance)
    through = pulled(after, [*u], list(leaves.values()))
    grads = [added(a, b) for a, b in zip(through, direct[count:], strict=True)]
    return leave(found.detached().tree, "read"), _named(run, leaves, grads, "the last step")


def _refuse_no_step(moved: Vector, w: Vector, last: int) -> None:
    """A step of rate 0 satisfies every theta: it says nothing of how theta depends on phi."""
    rounding = MIN_STEP * max((torch.finfo(part.dtype).eps for part in w), default=0.0)
    if norm(w) > 0 and norm(moved) <= rounding * norm(w):
        raise InvalidSolutionError(
            f"the loop's last step (t={last}) is the identity there, as with a rate that decays to "
            "0: it tells nothing of how the end depends on phi; let the last step have the rate of "
            "the others, or use ReverseUnroll or FG2U"
        )


def _say_how_far_the_end_is(before: Leaves, end: Leaves, after: Leaves) -> None:
    """Warn of a loop whose last step, repeated, would still go far: a geometric series."""
    last, size = _moved(before, end), norm(end.moving)
    moves = _moved(end, after)
    rounding = MIN_MOVE * max((torch.finfo(part.dtype).eps for part in end.moving), default=0.0)
    if moves <= rounding * size:
        return
    left = moves / (1 - moves / last) if moves < last else math.inf
    if left > MAX_DISTANCE * size:
        rounded = float(f"{left / size:.0e}")  # so that a descent does not warn at every step
        share = f"about {rounded:.2g} of its size" if left < size else "more than its size"
        warnings.warn(
            f"the loop has not converged: its last step, repeated, would move its end by {share}, "
            "and implicit derivatives may be wrong by as much; take more steps, or use "
            "ReverseUnroll or FG2U",
            RuntimeWarning,
            stacklevel=3,
        )


def _moved(a: Leaves, b: Leaves) -> float:
    return norm(plus(b.moving, -1.0, a.moving))


def _differentiable(run: Run) -> tuple[dict[str, torch.Tensor], Phi]:
    leaves = {
        name: value.detach().clone().requires_grad_()
        for name, value in run.phi.items()
        if isinstance(value, torch.Tensor)
    }
    return leaves, {**run.phi, **leaves}


def _split(cotangent: Cotangent, found: Leaves) -> Grads:
    """The gradient in the inner solution, leaf by leaf (those that move)."""
    flat = torch.as_tensor(cotangent(leave(found.detached().tree, "read")))
    parts: Grads = []
    start = 0
    for leaf in found.all:
        part = flat[start : start + leaf.numel()].reshape(leaf.shape)
        start += leaf.numel()
        if leaf.dtype.is_floating_point:
            parts.append(part.to(dtype=leaf.dtype, device=leaf.device))
    return parts


def _or_zeros(grads: Grads, like: list[torch.Tensor]) -> Vector:
    return [
        torch.zeros_like(leaf) if grad is None else grad
        for grad, leaf in zip(grads, like, strict=True)
    ]


def _named(run: Run, leaves: dict[str, torch.Tensor], grads: Grads, what: str) -> dict[str, Any]:
    lost = [name for name, grad in zip(leaves, grads, strict=True) if grad is None]
    lost = [name for name in lost if name not in run.loop.allow_unreached]
    refuse_unreached(lost, what, is_whole=what == WHOLE)
    return {
        name: grad.detach().cpu().double().numpy()
        for name, grad in zip(leaves, _or_zeros(grads, list(leaves.values())), strict=True)
    }
