"""Reverse mode through a loop: all of it (RGU), its last steps (TRGU), or its end (implicit).

`g = sum_t (df/dtheta_T) A_T ... A_{t+1} B_t`; the truncated sum keeps the last terms, the
implicit one puts `A_T` and `B_T` in place of every `A_t` and `B_t` (arXiv 2406.14095, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from zo_bilevel.adapters.torch_unroll.checks import check_finite, refuse_unreached, rehearse
from zo_bilevel.adapters.torch_unroll.leaves import Leaves, leave
from zo_bilevel.adapters.torch_unroll.torch_unroll import Phi, Run
from zo_bilevel.adapters.torch_unroll.words import explained
from zo_bilevel.support.errors import InvalidSolutionError

Cotangent: TypeAlias = Callable[[Any], Any]

WHOLE = "the inner loop"

GROWTH = 1e3
"""Terms of a Neumann series that grow by more than this do not add up to anything."""


def pull_trajectory(
    run: Run, cotangent: Cotangent, last_steps: int | None
) -> tuple[Any, dict[str, Any]]:
    """Back through the steps as they were taken.

    Args:
        run: The run.
        cotangent: From the inner solution to the gradient in it, flat `(m,)`.
        last_steps: How many; `None` or at least T is all of them and `init`.

    Returns:
        The inner solution and the gradient by name.

    Raises:
        InputError: If those steps do not depend on a parameter.
    """
    total = run.loop.num_steps
    last = total if last_steps is None else min(last_steps, total)
    leaves, phi = _differentiable(run)
    rehearse(run)
    with run.random(), torch.no_grad():
        with torch.set_grad_enabled(last == total):
            theta = run.initial(phi)
        for t in range(total):
            with torch.set_grad_enabled(t >= total - last):
                theta = run.next(theta, phi, t, run.batch(t))
        with torch.enable_grad():
            found = run.observed(theta, phi)
    check_finite(run, found)
    what = WHOLE if last == total else f"the end of the loop (its last {last} steps)"
    grads = _pulled(found, _split(cotangent, found), list(leaves.values()), keep=False)
    return leave(found.detached().tree, "read"), _named(run, leaves, grads, what)


def pull_fixed_point(run: Run, cotangent: Cotangent, terms: int) -> tuple[Any, dict[str, Any]]:
    """Through the last step as a fixed-point map: `sum_{k < terms} (A')^k` before `B'`.

    For gradient descent, `A = I - rate H` and the sum tends to `(rate H)^-1`: the implicit
    function theorem.

    Args:
        run: The run.
        cotangent: From the inner solution to the gradient in it, flat `(m,)`.
        terms: Terms of the series, >= 1.

    Returns:
        The inner solution and the gradient by name.

    Raises:
        InputError: If the step does not depend on a parameter.
        InvalidSolutionError: If the terms of the series grow instead of shrinking.
    """
    leaves, phi = _differentiable(run)
    rehearse(run)
    last = run.loop.num_steps - 1
    with run.random(), torch.no_grad():
        theta = run.initial(phi)
        for t in range(run.loop.num_steps):
            theta = run.next(theta, phi, t, run.batch(t))
        with torch.enable_grad():
            end = theta.with_leaves([leaf.detach().requires_grad_() for leaf in theta.moving])
            found = run.observed(end, phi)
            after = run.next(end, phi, last, run.batch(last))
    check_finite(run, found)
    # the gradient in theta_T and, if `read` looks at phi, directly in phi
    inputs = [*end.moving, *leaves.values()]
    pulled = _pulled(found, _split(cotangent, found), inputs)
    count = len(end.moving)
    term = [_or_zero(grad, leaf) for grad, leaf in zip(pulled[:count], end.moving, strict=True)]
    total, first = term, _norm(term)
    for _ in range(terms - 1):
        grads = _pulled(after, term, end.moving)
        term = [_or_zero(grad, leaf) for grad, leaf in zip(grads, end.moving, strict=True)]
        total = [sum_ + more for sum_, more in zip(total, term, strict=True)]
    _check_shrinking(first, _norm(term), terms)
    through = _pulled(after, total, list(leaves.values()))
    grads = [_added(a, b) for a, b in zip(through, pulled[count:], strict=True)]
    return leave(found.detached().tree, "read"), _named(run, leaves, grads, "the last step")


def _norm(leaves: list[torch.Tensor]) -> float:
    return math.hypot(*(float(leaf.double().norm()) for leaf in leaves))


def _check_shrinking(first: float, last: float, terms: int) -> None:
    if not last <= GROWTH * first:  # also when it is no number
        raise InvalidSolutionError(
            f"the Neumann series does not converge: its {terms} terms grow from norm {first:.3g} "
            f"to {last:.3g}, so that the last step is no contraction there; use ReverseUnroll, "
            "FG2U, fewer terms, or smaller inner steps"
        )


def _differentiable(run: Run) -> tuple[dict[str, torch.Tensor], Phi]:
    leaves = {
        name: value.detach().clone().requires_grad_()
        for name, value in run.phi.items()
        if isinstance(value, torch.Tensor)
    }
    return leaves, {**run.phi, **leaves}


def _split(cotangent: Cotangent, found: Leaves) -> list[torch.Tensor]:
    """The gradient in the inner solution, leaf by leaf (those that move)."""
    flat = torch.as_tensor(cotangent(leave(found.detached().tree, "read")))
    parts, start = [], 0
    for leaf in found.all:
        part = flat[start : start + leaf.numel()].reshape(leaf.shape)
        start += leaf.numel()
        if leaf.dtype.is_floating_point:
            parts.append(part.to(dtype=leaf.dtype, device=leaf.device))
    return parts


def _pulled(
    outputs: Leaves,
    weights: list[torch.Tensor],
    inputs: list[torch.Tensor],
    *,
    keep: bool = True,
) -> list[torch.Tensor | None]:
    """`weights' d outputs / d inputs`; `None` where there is no way."""
    pairs = [(o, w) for o, w in zip(outputs.moving, weights, strict=True) if o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    tensors, kept = zip(*pairs, strict=True)
    with explained("a step"):
        grads = torch.autograd.grad(tensors, inputs, kept, retain_graph=keep, allow_unused=True)
    return list(grads)


def _or_zero(grad: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like) if grad is None else grad


def _added(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _named(
    run: Run, leaves: dict[str, torch.Tensor], grads: list[torch.Tensor | None], what: str
) -> dict[str, Any]:
    lost = [name for name, grad in zip(leaves, grads, strict=True) if grad is None]
    lost = [name for name in lost if name not in run.loop.allow_unreached]
    refuse_unreached(lost, what, is_whole=what == WHOLE)
    return {
        name: _or_zero(grad, leaf).detach().cpu().double().numpy()
        for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
    }
