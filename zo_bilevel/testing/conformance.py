"""One conformance check for each kind of part, for this package's tests and for users' own.

Each function raises `AssertionError` with the rule that is broken. A new estimator
(`estimators.py`), store (`stores.py`), method, dispatcher, adapter or task passes its check first.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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
from zo_bilevel.solve.dispatch.batched import Batched
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Evaluation, Job, Outcome, Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, UnsupportedProblemError

BUDGETS = (1, 3, 24)
BOUND_ROUNDING = 1e-9
"""By how much a scaled coordinate may lie beyond its bound."""
ALIKE_SHARE = 1e-6
"""Of theta's spread: by how much `solve_batch` may differ from `__call__` in float64."""


def require(condition: bool, rule: str) -> None:
    """Say which rule a part breaks; `AssertionError` if it is not."""
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
    """Counts solves, some of which fail."""

    def __init__(self, problem: Problem, fail_at: Callable[[int], bool]) -> None:
        self.problem = problem
        self.fail_at = fail_at
        self.calls = 0

    def __call__(self, phi: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the user's value
        self.calls += 1
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
    _by_hand(method, problem)
    for budget in BUDGETS:
        watch = _Watched(problem, lambda _: False)
        result = minimize(watch.watched(), method, max_solves=budget)
        require(watch.calls == result.solves, "every solve is counted")
        require(result.solves <= budget, f"a budget of {budget} is not overrun")
        require(bool(result.stop_reason), "a run says why it stopped")
    _check_reproducible(method, problem)
    _check_failures(method, problem)


def _fails(call: int) -> bool:
    return call % 4 == 3


def _losses(method: Method, problem: Problem, seed: int, width: int = 1) -> list[float]:
    result = minimize(problem, method, max_solves=BUDGETS[-1], seed=seed, round_width=width)
    return [record.loss for record in result.history]


def _by_hand(method: Method, problem: Problem) -> list[float]:
    """Losses of a run of `ask` and `tell`, each point looked at."""
    state = method.start(problem, 5, max_solves=BUDGETS[-1])
    evaluator = Evaluator(problem, Serial(), 5)
    evaluations: list[Evaluation] = []
    while len(evaluations) < BUDGETS[-1] and (points := method.ask(state)):
        for point in points:
            _check_point(point, problem.space)
        found = evaluator.evaluate(points)
        evaluations += found
        state = method.tell(state, found)
    state.close()
    return [evaluation.loss for evaluation in evaluations]


def _check_point(point: Point, space: Space) -> None:
    require(point.x.shape == (space.size,), f"points have shape ({space.size},), got {point.x}")
    inside = (point.x >= space.lower - BOUND_ROUNDING) & (point.x <= space.upper + BOUND_ROUNDING)
    require(bool(inside.all()), f"points lie within the bounds, got {point.x}")


def _check_reproducible(method: Method, problem: Problem) -> None:
    for width in (1, 4):
        first = _losses(method, problem, 5, width)
        require(first == _losses(method, problem, 5, width), "same seed, same numbers")
    expected = _losses(method, problem, 5)
    by_hand = _by_hand(method, problem)
    require(by_hand[: len(expected)] == expected, "ask and tell by hand agree with minimize")


def _check_failures(method: Method, problem: Problem) -> None:
    _by_hand(method, _Watched(problem, _fails).watched())
    watch = _Watched(problem, _fails)
    result = minimize(watch.watched(), method, max_solves=BUDGETS[-1])
    require(watch.calls == result.solves, "failed solves are counted")
    require(np.isfinite(result.loss), "a run survives failed solves")


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

    A `solve_batch`, where there is one, gives what `__call__` gives, up to rounding in theta's own
    precision.

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
    jobs: list[Job] = []
    single: list[Outcome] = []
    for x in (np.zeros(space.size), *rng.uniform(-1, 1, (2, space.size))):
        job = Job(len(jobs), space.decode(x), 11)
        first, second = solve(job), solve(job)
        require(first.status == "ok", f"a solve succeeds, got {first.status}: {first.error}")
        same = np.array_equal(first.theta, second.theta)  # type: ignore[arg-type]
        require(same, "the same point and seed give the same theta")
        jobs.append(job)
        single.append(first)
    layouts = {outcome.layout for outcome in single}
    require(len(layouts) == 1, f"theta keeps its structure, got {layouts}")
    if hasattr(solve.inner, "solve_batch"):
        _check_batch(jobs, single, dict(Batched().run(solve, jobs)))


def _check_batch(jobs: list[Job], single: list[Outcome], batch: dict[int, Outcome]) -> None:
    thetas = np.array([outcome.theta for outcome in single])
    dtype = "float64" if single[0].layout is None else single[0].layout.dtype
    room = max(ALIKE_SHARE, 1e3 * float(np.finfo(dtype).eps)) * float(np.ptp(thetas) or 1.0)
    for job, theta in zip(jobs, thetas, strict=True):
        found = batch[job.index]
        require(found.status == "ok", f"solve_batch succeeds at {job.phi}, got {found.error}")
        alike = found.theta is not None and found.theta.shape == theta.shape
        require(alike, f"solve_batch gives the size of theta that a call gives, at {job.phi}")
        off = float(np.max(np.abs(np.asarray(found.theta) - theta)))
        rule = f"solve_batch gives what a call gives, but is {off:.3g} off at {job.phi}"
        require(off <= room, rule)


def check_task(task: Task) -> None:
    """Check a task: its start solves, its truth beats its start, its facts fit together.

    Args:
        task: The task.

    Raises:
        AssertionError: Naming the rule that is broken.
    """
    require(bool(task.summary) and len(task.summary) <= 70, "a summary of at most 70 characters")
    require(task.max_solves >= 1, f"max_solves is >= 1, got {task.max_solves}")
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
