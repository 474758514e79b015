"""An inner solver that is somebody else's: differentiated by what its answer satisfies.

`condition(theta, phi) = 0` defines `theta(phi)`, so that `dtheta/dphi = -K^-1 dcondition/dphi` with
`K = dcondition/dtheta`, however theta was found (the implicit function theorem; Blondel et al.
2022, "Efficient and Modular Implicit Differentiation", arXiv 2105.15183).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import numpy as np
import torch

from zo_bilevel.adapters.torch_unroll.checks import refuse_unreached
from zo_bilevel.adapters.torch_unroll.leaves import take_apart
from zo_bilevel.adapters.torch_unroll.linear_systems import Solver, Vector, solved
from zo_bilevel.adapters.torch_unroll.run import Phi
from zo_bilevel.adapters.torch_unroll.torch_unroll import as_tensor
from zo_bilevel.problem.solver_identity import content_hash
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import InputError, InvalidSolutionError, UnsupportedProblemError

MAX_RESIDUAL = 1e-3
"""Largest `|condition|`, relative to what it is one unit of theta away, taken for a solution."""
FORWARD_TOLERANCE = 1e-10


@final
class ImplicitSolution:
    """`theta = solve(phi)` by scipy, a solver of one's own, or a program; differentiable.

    Works with `FG2U` and with the implicit estimators (`Implicit`, `ConjugateGradient`, `Neumann`),
    in double precision. Give one of `condition` and `step`, written in torch.

    Args:
        solve: `solve(phi)` or `solve(phi, seed=seed)` with a dict of numpy values: theta, an array.
        condition: `condition(theta, phi)`: zero at the solution, of theta's shape; for a minimum
            the inner objective's gradient (`torch.func.grad`).
        step: `step(theta, phi)`: equals theta at the solution, such as one step of gradient descent
            or a proximal step.

    Raises:
        InputError: If not exactly one of `condition` and `step` is given, or one cannot be called.

    Example:
        >>> root = ImplicitSolution(lambda phi: np.sqrt(phi["a"]), lambda t, phi: t**2 - phi["a"])
        >>> float(root.jvp({"a": np.float64(4.0)}, {"a": np.ones(1)}, seed=0)[1][0])
        0.25
    """

    device = "cpu"

    def __init__(
        self,
        solve: Callable[..., Any],
        condition: Callable[[torch.Tensor, Phi], torch.Tensor] | None = None,
        *,
        step: Callable[[torch.Tensor, Phi], torch.Tensor] | None = None,
    ) -> None:
        if (condition is None) == (step is None):
            raise InputError("exactly one of condition and step must be given")
        for name, function in (("solve", solve), ("condition", condition), ("step", step)):
            if function is not None and not callable(function):
                raise InputError(f"{name} must be callable, got {function!r}")
        self.solve, self.condition, self.step = solve, condition, step
        self._seeded = takes_seed(solve)

    @property
    def name(self) -> str:
        """A hash of all that it is made of, by which a store tells solvers apart."""
        parts = self.solve, self.condition, self.step
        return f"ImplicitSolution#{content_hash(*parts)}"

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401
        """The inner solution."""
        return self.solve(phi, seed=seed) if self._seeded else self.solve(phi)

    def jvp(
        self, phi: Mapping[str, Any], tangents: Mapping[str, Any], *, seed: int | None = None
    ) -> tuple[Any, Any]:
        """The inner solution and its derivatives along c tangents `(c, *shape)`.

        Raises:
            InvalidSolutionError: If what `solve` returns does not satisfy the condition.
        """
        theta, leaves, fixed = self._solved(phi, seed)
        rows = {name: as_tensor(value, torch.float64, "cpu") for name, value in tangents.items()}

        def product(u: Vector) -> Vector:
            along = torch.func.jvp(lambda t: self._residual(t, leaves, fixed), (theta,), (u[0],))
            return [along[1]]

        rights = []
        for k in range(len(next(iter(rows.values())))):
            direction = {name: row[k] for name, row in rows.items()}
            at = {name: leaves[name] for name in rows}
            right = torch.func.jvp(
                lambda part: self._residual(theta, {**leaves, **part}, fixed), (at,), (direction,)
            )[1]
            rights.append([-right])
        pushed = solved("gmres", product, rights, "auto", FORWARD_TOLERANCE)
        return theta, torch.stack([u for (u,) in pushed])

    def pull_fixed_point(
        self,
        phi: Mapping[str, Any],
        cotangent: Callable[[Any], Any],
        *,
        seed: int | None = None,
        terms: int | Literal["auto"] = 1,
        tolerance: float = 0.0,
        solver: Solver = "neumann",
    ) -> tuple[Any, dict[str, Any]]:
        """The inner solution, and a gradient in it pulled back to phi.

        Raises:
            InvalidSolutionError: If what `solve` returns does not satisfy the condition.
            InputError: If the condition does not depend on a parameter.
        """
        theta, leaves, fixed = self._solved(phi, seed)
        at = theta.clone().requires_grad_()
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
        residual = self._residual(at, leaves, fixed)

        def product(u: Vector) -> Vector:
            return list(torch.autograd.grad(residual, [at], u, retain_graph=True))

        right = torch.as_tensor(cotangent(theta)).reshape(theta.shape)
        (u,) = solved(solver, product, [[right.double()]], terms, tolerance)
        grads = torch.autograd.grad(residual, list(leaves.values()), u, allow_unused=True)
        lost = [name for name, grad in zip(leaves, grads, strict=True) if grad is None]
        refuse_unreached(lost, "the condition")
        return theta, {
            name: -grad.numpy()
            for name, grad in zip(leaves, grads, strict=True)
            if grad is not None
        }

    def pull_trajectory(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401
        """There is none.

        Raises:
            UnsupportedProblemError: Always.
        """
        raise UnsupportedProblemError(
            "an ImplicitSolution has no steps to unroll; use Implicit, ConjugateGradient or FG2U"
        )

    def _residual(self, theta: torch.Tensor, leaves: Phi, fixed: Phi) -> torch.Tensor:
        phi = {**fixed, **leaves}
        value = self.condition(theta, phi) if self.condition else theta - self._stepped(theta, phi)
        if value.shape != theta.shape:
            what = "condition" if self.condition else "step"
            raise InputError(
                f"{what} must return theta's shape {tuple(theta.shape)}, got {tuple(value.shape)}"
            )
        return value

    def _stepped(self, theta: torch.Tensor, phi: Phi) -> torch.Tensor:
        assert self.step is not None  # noqa: S101 - one of the two is given
        return self.step(theta, phi)

    def _solved(
        self, phi: Mapping[str, Any], seed: int | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], Phi]:
        """Theta, the parts of phi with a derivative, and those without."""
        answer = self(phi, seed=seed)
        theta = torch.as_tensor(np.asarray(answer, dtype=np.float64))
        take_apart(theta, "solve")
        known = {name: as_tensor(value, torch.float64, "cpu") for name, value in phi.items()}
        leaves = {name: v for name, v in known.items() if isinstance(v, torch.Tensor)}
        fixed = {name: v for name, v in known.items() if name not in leaves}
        self._check_solution(theta, leaves, fixed)
        return theta, leaves, fixed

    def _check_solution(self, theta: torch.Tensor, leaves: Phi, fixed: Phi) -> None:
        generator = torch.Generator().manual_seed(0)
        way = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
        way = way * (theta.abs().mean() + 1.0) / way.norm()

        def residual(t: torch.Tensor) -> torch.Tensor:
            return self._residual(t, leaves, fixed)

        jvp: Any = torch.func.jvp  # its annotation forgets how many it returns
        value, along = jvp(residual, (theta,), (way,))
        left, scale = float(value.detach().norm()), float(along.detach().norm())
        if not left <= MAX_RESIDUAL * scale:
            raise InvalidSolutionError(
                f"what solve returns does not satisfy the condition: its norm is {left:.3g}, and "
                f"{scale:.3g} a typical step away; solve more accurately, or correct the condition"
            )
