"""Gradient descent on the estimated hypergradient, with any torch optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import numpy as np

from zo_bilevel.errors import InputError
from zo_bilevel.estimators.base import Estimator
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.methods.base import Method, Rounds, Search

if TYPE_CHECKING:
    import torch

MAX_LOST_SKETCHES = 10


@final
class GradientMethod(Method):
    """(FG)2U-ZO with a torch optimizer: one sketch, one optimizer step, in scaled coordinates.

    Args:
        estimator: Makes the sketches; default `FG2UZO()`.
        optimizer: A `torch.optim` class; default Adam.
        scheduler: Makes a learning-rate scheduler from the optimizer, stepped after each step.
        **optimizer_options: Passed to the optimizer; `lr` defaults to 0.1 scaled units.

    Raises:
        InputError: If the estimator is none, or the optimizer refuses its options.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, SquaredError, minimize
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> result = minimize(problem, GradientMethod(lr=0.2), max_solves=100)
        >>> abs(result.phi["a"] - 2.0) < 0.1
        True

    Source:
        arXiv 2406.14095, Algorithm 1; the projection on the bounds follows each step.
    """

    def __init__(
        self,
        estimator: Estimator | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        *,
        scheduler: Callable[[Any], Any] | None = None,
        **optimizer_options: Any,  # noqa: ANN401 - passed through to torch
    ) -> None:
        self.estimator: Estimator = FG2UZO() if estimator is None else estimator
        if not isinstance(self.estimator, Estimator):
            raise InputError(f"estimator must make sketches, got {type(estimator).__name__}")
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.options = {"lr": 0.1, **optimizer_options}
        if optimizer_options:
            self._make_optimizer(np.zeros(1))

    @property
    def name(self) -> str:
        """`zo-` and the optimizer's name."""
        return "zo-" + getattr(self.optimizer, "__name__", "adam").lower()

    def _make_optimizer(self, start: Any) -> tuple[Any, Any]:  # noqa: ANN401 - torch objects
        import torch

        position = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        factory = torch.optim.Adam if self.optimizer is None else self.optimizer
        try:
            return position, factory([position], **self.options)
        except (TypeError, ValueError) as error:
            raise InputError(f"optimizer refuses its options {self.options}: {error}") from error

    def rounds(self, search: Search) -> Rounds:
        """One sketch a round.

        Args:
            search: Problem, start, seed.

        Yields:
            The solves of each sketch.

        Returns:
            Why it stopped: only when sketches fail again and again.
        """
        import torch

        position, optimizer = self._make_optimizer(search.start)
        scheduler = None if self.scheduler is None else self.scheduler(optimizer)
        bound, lost, step = None, 0, 0
        while lost < MAX_LOST_SKETCHES:
            x = position.detach().numpy().copy()
            plan = self.estimator.plan(search.space, x, search.rng(step), (step,))
            evaluations = yield plan.points
            step += 1
            usable = evaluations[0].ok and any(e.ok for e in evaluations[1:])
            if not usable:
                lost += 1
                continue
            lost = 0
            bound = bound or search.bind(evaluations[0])
            sketch = self.estimator.sketch(plan, evaluations, bound)
            if sketch.num_directions == 0:
                continue
            gradient, _ = sketch.hypergradient(bound)
            position.grad = torch.from_numpy(gradient)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            with torch.no_grad():
                position.clamp_(
                    torch.from_numpy(search.space.lower), torch.from_numpy(search.space.upper)
                )
        return f"{MAX_LOST_SKETCHES} sketches in a row failed"
