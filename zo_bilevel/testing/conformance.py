"""One conformance check for each kind of part, for this package's tests and for users' own.

Each function raises `AssertionError` with the rule that is broken. A new estimator, method,
dispatcher, adapter or task passes its check before it is merged.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zo_bilevel.estimators.base import GradientEstimator
from zo_bilevel.methods.base import Method
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Log, Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.loop import minimize
from zo_bilevel.solve.dispatch.base import Dispatcher, Solve
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, UnsupportedProblemError

BUDGETS = (1, 3, 24)


def require(condition: bool, rule: str) -> None:
    """Say which rule a part breaks.

    Args:
        condition: Whether the rule is kept.
        rule: In words.

    Raises:
        AssertionError: If it is not.
    """
    if not condition:
        raise AssertionError(rule)


def _oscillator(phi: Mapping[str, Any]) -> FloatArray:
    """A smooth solver of two parameters: a damped oscillation at twelve times."""
    times = np.linspace(0.0, 3.0, 12)
    wave: FloatArray = np.exp(-phi["damping"] * times) * np.cos(3.0 * phi["stiffness"] * times)
    return wave


def sample_problem() -> Problem:
    """A small vector problem with its minimum, loss 0, inside the box.

    Example:
        >>> sample_problem().space.names
        ('stiffness', 'damping')
    """
    space = Space(stiffness=Real(0.5, 1.5), damping=Log(0.05, 5.0))
    target = _oscillator({"stiffness": 1.1, "damping": 0.4})
    return Problem(space, _oscillator, SquaredError(target), name="oscillator")


class _Watched:
    """Counts solves and checks that every point is within bounds."""

    name = "watched"

    def __init__(self, problem: Problem, fail_at: Callable[[int], bool]) -> None:
        self.problem = problem
        self.fail_at = fail_at
        self.calls = 0

    def __call__(self, phi: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the user's value
        self.calls += 1
        self.problem.space.encode(phi)  # raises outside the bounds
        if self.fail_at(self.calls):
            raise RuntimeError("planned failure")
        return self.problem.inner(phi)

    def watched(self) -> Problem:
        """The problem with this solver in place of its own."""
        return Problem(
            self.problem.space, self, self.problem.outer, is_scalar=self.problem.is_scalar
        )


def check_method(method: Method, problem: Problem | None = None) -> None:
    """Check a method: exact budgets, bounds, same seed same numbers, failures survived.

    Args:
        method: The method.
        problem: What to try it on; a small vector problem by default.

    Raises:
        AssertionError: Naming the rule that is broken.

    Example:
        >>> from zo_bilevel import RandomSearch
        >>> check_method(RandomSearch())
    """
    problem = sample_problem() if problem is None else problem
    require(bool(method.name) and method.name == method.name.strip(), "a method has a name")
    for budget in BUDGETS:
        watch = _Watched(problem, lambda _: False)
        result = minimize(watch.watched(), method, max_solves=budget)
        require(watch.calls == result.solves, "every solve is counted")
        require(result.solves <= budget, f"a budget of {budget} is not overrun")
        require(bool(result.stop_reason), "a run says why it stopped")
    _check_reproducible(method, problem)
    _check_failures(method, problem)


def _losses(method: Method, problem: Problem, seed: int, width: int = 1) -> list[float]:
    result = minimize(problem, method, max_solves=BUDGETS[-1], seed=seed, round_width=width)
    return [record.loss for record in result.history]


def _check_reproducible(method: Method, problem: Problem) -> None:
    for width in (1, 4):
        first = _losses(method, problem, 5, width)
        require(first == _losses(method, problem, 5, width), "same seed, same numbers")
    state = method.start(problem, 5, max_solves=BUDGETS[-1])
    evaluator = Evaluator(problem, Serial(), 5)
    by_hand: list[float] = []
    while len(by_hand) < BUDGETS[-1] and (points := method.ask(state)):
        evaluations = evaluator.evaluate(points)
        by_hand += [evaluation.loss for evaluation in evaluations]
        state = method.tell(state, evaluations)
    state.close()
    expected = _losses(method, problem, 5)
    require(by_hand[: len(expected)] == expected, "ask and tell by hand agree with minimize")


def _check_failures(method: Method, problem: Problem) -> None:
    watch = _Watched(problem, lambda call: call % 4 == 3)
    result = minimize(watch.watched(), method, max_solves=BUDGETS[-1])
    require(watch.calls == result.solves, "failed solves are counted")
    require(np.isfinite(result.loss), "a run survives failed solves")


def check_estimator(estimator: GradientEstimator, draws: int = 200) -> None:
    """Check an estimator: its mean is the hypergradient of a linear solver, failures drop out.

    Args:
        estimator: The estimator.
        draws: Sketches averaged; the mean must lie within 5 standard errors, and half of it
            must not, or the check has no power.

    Raises:
        AssertionError: Naming the rule that is broken.

    Example:
        >>> from zo_bilevel import FG2UZO
        >>> check_estimator(FG2UZO(2))
    """
    matrix = np.random.default_rng(0).normal(size=(7, 4))
    problem = Problem(
        Space(a=Real(-3, 3, (4,))), lambda phi: matrix @ phi["a"], SquaredError(np.ones(7))
    )
    x = np.array([0.5, -0.2, 0.1, 0.3])
    exact = 2.0 * matrix.T @ (matrix @ x - 1.0) / 7.0
    gradients = []
    for seed in range(draws):
        plan = estimator.plan(problem.space, x, np.random.default_rng(seed), (0,))
        require(all((np.abs(p.x) <= 3).all() for p in plan.points), "probes respect bounds")
        evaluator = Evaluator(problem, Serial(), 0)
        evaluations = evaluator.evaluate(plan.points)
        if evaluator.bound is None:
            raise AssertionError("the base solve binds the problem")
        sketch = estimator.sketch(plan, evaluations, evaluator.bound)
        gradients.append(sketch.hypergradient(evaluator.bound)[0])
    spread = np.std(gradients, axis=0, ddof=1) / np.sqrt(draws) + 1e-6 * np.linalg.norm(exact)
    far = np.max(np.abs(np.mean(gradients, axis=0) - exact) / spread)
    half = np.max(np.abs(0.5 * np.mean(gradients, axis=0) - exact) / spread)
    require(bool(far < 5.0), f"the mean is the hypergradient, but is {far:.1f} errors away")
    require(bool(half > 5.0), "a wrong factor of one half must be seen: use more draws")


def check_dispatcher(dispatcher: Dispatcher, solver: Callable[..., Any] | None = None) -> None:
    """Check a dispatcher: every job answered once, the numbers of `Serial`, failures as values.

    Args:
        dispatcher: The dispatcher; closed at the end.
        solver: An inner solver of `sample_problem`'s parameters, for dispatchers that need a
            particular kind (`solve_batch`); default a plain function.

    Raises:
        AssertionError: Naming the rule that is broken.

    Example:
        >>> check_dispatcher(Serial())
    """
    solve = Solve(_oscillator if solver is None else solver)
    space = sample_problem().space
    rng = np.random.default_rng(1)
    phis = [space.decode(rng.uniform(-3, 3, 2)) for _ in range(9)]
    jobs = [Job(place, phi, place) for place, phi in enumerate(phis)]
    answers = list(dispatcher.run(solve, jobs))
    require(sorted(place for place, _ in answers) == list(range(9)), "each job answered once")
    expected = dict(Serial().run(solve, jobs))
    for place, outcome in answers:
        require(outcome.status == "ok", f"a good solve is ok, got {outcome.error}")
        same = np.array_equal(outcome.theta, expected[place].theta)  # type: ignore[arg-type]
        require(same, "the numbers of Serial")
    require(list(dispatcher.run(solve, [])) == [], "an empty round is answered at once")
    dispatcher.close()
    again = list(dispatcher.run(solve, jobs[:2]))
    require(len(again) == 2, "a closed dispatcher can be used again")
    dispatcher.close()


def check_inner_solver(inner: Callable[..., Any], space: Space, *, picklable: bool = True) -> None:
    """Check an adapter or any inner solver: usable values, one structure, same seed same numbers.

    Args:
        inner: The inner solver.
        space: Where it is solved: the middle and two random points.
        picklable: Whether process dispatch must be possible.

    Raises:
        AssertionError: Naming the rule that is broken.

    Example:
        >>> problem = sample_problem()
        >>> check_inner_solver(problem.inner, problem.space)
    """
    solve = Solve(pickle.loads(pickle.dumps(inner)) if picklable else inner)
    rng = np.random.default_rng(0)
    layouts = set()
    for x in (np.zeros(space.size), *rng.uniform(-1, 1, (2, space.size))):
        job = Job(0, space.decode(x), 11)
        first, second = solve(job), solve(job)
        require(first.status == "ok", f"a solve succeeds, got {first.status}: {first.error}")
        same = np.array_equal(first.theta, second.theta)  # type: ignore[arg-type]
        require(same, "the same point and seed give the same theta")
        layouts.add(first.layout)
    require(len(layouts) == 1, f"theta keeps its structure, got {layouts}")


def check_task(task: Task) -> None:
    """Check a task: its start solves, its truth beats its start, its facts fit together.

    Args:
        task: The task.

    Raises:
        AssertionError: Naming the rule that is broken.
    """
    require(bool(task.summary) and len(task.summary) <= 70, "a summary of at most 70 characters")
    problem = task.problem
    losses = {}
    points = {"start": problem.space.encode(task.start(0))}
    if task.truth is not None:
        points["truth"] = problem.space.encode(task.truth)
    for name, x in points.items():
        solved = Solve(problem.inner)(Job(0, problem.space.decode(x), 0))
        require(solved.status == "ok", f"the {name} solves, got {solved.error}")
        theta, layout = flatten_theta(solved.theta)[0], solved.layout
        if layout is None:
            raise AssertionError("a solve that is ok has a structure")
        losses[name] = problem.bind(theta, layout, x).value(theta, x)
    if task.truth is not None:
        require(losses["truth"] < losses["start"], f"the truth is better: {losses}")
    if task.error is not None and task.truth is not None:
        found = problem.space.decode(points["truth"])
        require(task.error(found) < 1e-6, "the truth has no error")
    if task.target_loss is not None and "truth" in losses:
        require(losses["truth"] <= task.target_loss, "the truth reaches the target loss")


def refuses(method: Method, problem: Problem) -> str:
    """Why a method will not work on a problem, or an empty string when it will.

    Args:
        method: The method.
        problem: The problem.

    Returns:
        The reason in words.

    Example:
        >>> from zo_bilevel import RandomSearch
        >>> refuses(RandomSearch(), sample_problem())
        ''
    """
    try:
        method.start(problem).close()
    except (UnsupportedProblemError, InputError) as error:
        return str(error)
    return ""
