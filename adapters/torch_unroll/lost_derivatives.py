"""Derivatives that reverse mode loses and forward mode does not: parts in `torch.no_grad()`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar, final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from zo_bilevel.adapters.torch_unroll.checks import rehearse
from zo_bilevel.adapters.torch_unroll.forward import LEVELS, Tensors, dual_level, forward_ad
from zo_bilevel.adapters.torch_unroll.leaves import Leaves
from zo_bilevel.adapters.torch_unroll.run import Run
from zo_bilevel.support.errors import InputError

P = ParamSpec("P")
Found = TypeVar("Found")
MODES_AGREE = 1e-3
"""Share by which forward and reverse mode may differ: rounding, or a linear solver's tolerance."""


def refusing_no_grad(
    pull: Callable[Concatenate[Run, P], Found],
) -> Callable[Concatenate[Run, P], Found]:
    """Refuse loops whose derivative `pull` would lose in part; looked for once a loop.

    `init`, the first step and `read` are tried before; of the steps that the derivative goes
    through, those that do something new without a gradient are tried afterwards.

    Returns:
        The function, which raises `InputError` where forward and reverse mode disagree.
    """

    @functools.wraps(pull)
    def checked(run: Run, /, *args: P.args, **kwargs: P.kwargs) -> Found:
        rehearse(run)
        if "reverse" in run.loop.checked:
            return pull(run, *args, **kwargs)
        _refuse(run, None, 0)
        run.watch = watch = Watch()
        try:
            found = pull(run, *args, **kwargs)
        finally:
            run.watch = None
            for theta, t in watch.suspects:
                _refuse(run, theta, t)
        run.loop.checked |= {"reverse"}
        return found

    return checked


def _refuse(run: Run, theta: Leaves | None, t: int) -> None:
    try:
        with torch.no_grad(), LEVELS:
            disagree = _modes_disagree(run, theta, t)
    except Exception:  # noqa: BLE001 - no forward mode, or a fault of which the loop itself tells
        disagree = False
    if disagree:
        where = "init, the first step or read" if theta is None else f"step {t}"
        raise InputError(
            f"reverse mode loses a part of the derivative that forward mode finds: {where} "
            "works inside torch.no_grad(), or in a torch.autograd.Function whose backward is "
            "not its derivative; take it out of no_grad, write .detach() where a derivative is "
            "meant to be left out, or use FG2U"
        )


@final
class Watch(TorchFunctionMode):
    """Notes steps that use what has a gradient where none is recorded, each kind of step once."""

    def __init__(self) -> None:
        super().__init__()
        self.suspects: list[tuple[Leaves, int]] = []
        self._seen: set[tuple[Any, ...]] = set()
        self._lost: list[Any] = []

    @contextmanager
    def step(self, theta: Leaves, t: int) -> Iterator[None]:
        """Watch one step from `theta`."""
        if not torch.is_grad_enabled():
            yield
            return
        self._lost = []
        with self:
            yield
        kind = tuple(self._lost)
        if kind and kind not in self._seen:
            self._seen.add(kind)
            self.suspects.append((theta.detached(), t))

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            given = (a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor))
            if any(one.requires_grad for one in given):
                self._lost.append(func)
        return func(*args, **kwargs)


def _modes_disagree(run: Run, theta: Leaves | None, t: int) -> bool:
    """Whether `w' (J v)` is not `(w' J) v`, for v in the state before step t and for v in phi.

    Args:
        run: The run.
        theta: That state; `None` for what `init` gives, with its derivative and that of `read`.
        t: The step.
    """

    def ends(shifts: Tensors, values: Tensors) -> Tensors:
        with run.random():
            phi = {**run.phi, **dict(zip(names, values, strict=True))}
            begin = run.initial(phi) if theta is None else theta
            begin = begin.with_leaves([a + b for a, b in zip(begin.moving, shifts, strict=True)])
            after = run.next(begin, phi, t, run.batch(t))
            return after.moving + (run.observed(after, phi).moving if theta is None else [])

    def drawn(like: Tensors) -> Tensors:
        return [torch.randn(one.shape, generator=rng).to(one) for one in like]

    rng = torch.Generator().manual_seed(0)
    names = [name for name, value in run.phi.items() if isinstance(value, torch.Tensor)]
    with run.random():
        moving = (run.initial(run.phi) if theta is None else theta).moving
        shifts = [torch.zeros_like(leaf) for leaf in moving]
    inputs = [shifts, [run.phi[name].detach() for name in names]]
    leaves = [[one.clone().requires_grad_() for one in part] for part in inputs]
    with torch.enable_grad():
        found = ends(*leaves)
        weights = drawn(found)
        total = sum((a * b).sum() for a, b in zip(found, weights, strict=True))
        flat = [*leaves[0], *leaves[1]]
        grads = (
            torch.autograd.grad(total, flat, allow_unused=True, materialize_grads=True)
            if isinstance(total, torch.Tensor) and total.requires_grad
            else [torch.zeros_like(leaf) for leaf in flat]
        )
    of_parts = [grads[: len(shifts)], grads[len(shifts) :]]
    share = MODES_AGREE if all(torch.finfo(a.dtype).eps < MODES_AGREE for a in found) else 0.1
    for place, (part, pulled) in enumerate(zip(inputs, of_parts, strict=True)):
        moves = drawn(part)
        with dual_level():
            duals = [forward_ad.make_dual(a, v) for a, v in zip(part, moves, strict=True)]
            reached = ends(*(duals if k == place else other for k, other in enumerate(inputs)))
            after: list[Any] = [forward_ad.unpack_dual(one) for one in reached]
        pairs = ((a.detach(), b.primal) for a, b in zip(found, after, strict=True))
        if not all(torch.allclose(a, b, rtol=share, equal_nan=True) for a, b in pairs):
            return False  # random numbers of its own: two runs differ
        terms = [
            (w * one.tangent).double().ravel()
            for w, one in zip(weights, after, strict=True)
            if one.tangent is not None
        ]
        forward = float(sum(term.sum() for term in terms))
        backward = float(sum((g * v).double().sum() for g, v in zip(pulled, moves, strict=True)))
        if abs(forward - backward) > share * float(sum(term.abs().sum() for term in terms)):
            return True
    return False
