"""The hypergradient at one point, with its standard error."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from zo_bilevel.estimators.base import GradientEstimator
from zo_bilevel.estimators.fg2u_zo import FG2UZO
from zo_bilevel.estimators.sketch import Hypergradient, Sketch
from zo_bilevel.problem.parameters import Choice, Integer
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.solve.dispatch.distributed import default_dispatcher
from zo_bilevel.solve.streams import METHOD_KEY, generator
from zo_bilevel.support.errors import InnerSolverError, UnsupportedProblemError


def hypergradient(
    problem: Problem,
    phi: Mapping[str, Any] | None = None,
    *,
    estimator: GradientEstimator | None = None,
    seed: int = 0,
    dispatcher: Dispatcher | None = None,
) -> Hypergradient:
    """Estimate `dh/dphi`, the derivative of the outer objective through the inner solver.

    Args:
        problem: The problem.
        phi: Where, by name; missing names take the middle of their range.
        estimator: Any estimator; default `FG2UZO()`.
        seed: Seed of directions and solves.
        dispatcher: Runs the solves; default `Serial()`, or `Distributed()` on the ranks of an
            initialised `torch.distributed` group.

    Returns:
        A dict of arrays in the user's units; `.standard_error` holds the same names, and
        `.interval()` gives confidence intervals.

    Raises:
        InputError: If `phi` breaks a rule.
        InnerSolverError: If the base solve or every direction failed.
        UnsupportedProblemError: If a parameter is an integer or a choice.

    Example:
        >>> from zo_bilevel import Real, Space, SquaredError
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"], SquaredError(1.0))
        >>> round(float(hypergradient(problem, {"a": 3.0})["a"]), 3)
        4.0
    """
    for name, parameter in problem.space.parameters.items():
        if isinstance(parameter, Integer | Choice):
            raise UnsupportedProblemError(
                f"a hypergradient needs parameters that vary continuously, got {name}={parameter!r}"
            )
    estimator = FG2UZO() if estimator is None else estimator
    x = problem.space.encode(phi)
    rng = generator(seed, METHOD_KEY, 0)
    plan = estimator.plan(problem.space, x, rng, (0,))
    evaluator = Evaluator(problem, default_dispatcher() if dispatcher is None else dispatcher, seed)
    evaluations = evaluator.evaluate(plan.points)
    if not evaluations[0].ok or evaluator.bound is None:
        raise InnerSolverError(f"the solve at phi failed: {evaluations[0].error}")
    sketch = estimator.sketch(plan, evaluations, evaluator.bound)
    gradient, error = sketch.hypergradient(evaluator.bound)
    if isinstance(sketch, Sketch) and sketch.is_unseen.any():
        warnings.warn(
            f"{sketch.is_unseen.sum()} of {sketch.num_directions} differences are exactly 0: the "
            "parameters have no effect there, or a step of the radius is lost in a tolerance or in "
            "rounding inside the solver; give a larger radius, or solve more accurately",
            RuntimeWarning,
            stacklevel=2,
        )
    named = problem.space.named_gradient
    return Hypergradient(
        named(plan.x, gradient),
        named(plan.x, error),
        evaluations[0].loss,
        sum(point.solves for point in plan.points),
        sketch.dropped,
        sketch.num_directions,
    )
