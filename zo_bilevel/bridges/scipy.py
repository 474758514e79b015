"""Our methods behind `scipy.optimize.minimize(..., method=...)`."""

import inspect
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from scipy.optimize import Bounds, OptimizeResult

from zo_bilevel.methods.base import Method
from zo_bilevel.methods.default import DefaultMethod
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.run.loop import minimize
from zo_bilevel.run.result import Record
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.dispatch.distributed import default_dispatcher
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

PointOf: TypeAlias = Callable[[dict[str, float]], FloatArray]
UNUSED_ARGUMENTS = {
    "jac": "gradient information",
    "hess": "Hessian information",
    "hessp": "Hessian-vector product information",
}
REFUSED_ARGUMENTS = {
    "tol": "methods stop by rules of their own; options={'ftarget': ...} stops at or below a value",
    "maxiter": "iterations of methods differ in cost; options={'maxfev': ...} limits the calls",
}
STOPPED_BY_CALLBACK = 99
"""Status of a run that its callback stopped, as in scipy."""


@final
class _CallbackStoppedError(Exception):
    """The callback raised StopIteration."""


def scipy_method(
    method: Method | None = None, *, seed: int = 0, max_solves: int = 1000
) -> Callable[..., OptimizeResult]:
    """A callable for the `method` argument of `scipy.optimize.minimize`.

    Args:
        method: How to search; default `DefaultMethod()`.
        seed: Seed of the search.
        max_solves: Calls of the function; `options={"maxfev": ...}` comes before it.

    Returns:
        The callable. It needs finite `bounds`, which also tell the scale; a variable whose bounds
        are equal is fixed. It takes the options `maxfev` and `ftarget` (stop at or below this
        value), and a `callback`, told after a round, once for each call of the function, the best
        point so far, or an `OptimizeResult` where its one parameter is `intermediate_result`;
        StopIteration raised there ends the run. Derivatives are not used, with scipy's warning.

    Example:
        >>> from scipy.optimize import minimize as minimize_scipy
        >>> found = minimize_scipy(
        ...     lambda x: (x[0] - 1) ** 2 + x[1] ** 2,
        ...     [2.0, 1.0],
        ...     method=scipy_method(max_solves=60),
        ...     bounds=[(-3, 3), (-3, 3)],
        ... )
        >>> found.fun < 1e-4
        True
    """
    method = DefaultMethod() if method is None else method

    def run(
        fun: Callable[..., Any],
        x0: Sequence[float],
        args: tuple[Any, ...] = (),
        bounds: Any = None,  # noqa: ANN401 - Bounds or pairs
        callback: Callable[..., Any] | None = None,
        maxfev: int | None = None,
        ftarget: float | None = None,
        **options: Any,  # noqa: ANN401 - scipy's, checked below
    ) -> OptimizeResult:
        _check_options(options, method.name)
        start = np.atleast_1d(np.asarray(x0, dtype=np.float64))
        lower, upper = _bounds(bounds, start)
        value = _value(fun, args)
        free = np.flatnonzero(lower < upper)
        if not free.size:
            return _fixed(start, value(start))
        space = Space({f"x{k}": Real(float(lower[k]), float(upper[k])) for k in free})

        def point_of(phi: dict[str, float]) -> FloatArray:
            x = start.copy()
            x[free] = [phi[name] for name in space.names]
            return x

        watch = _Watch(start, point_of, callback)
        try:
            found = minimize(
                Problem(space, lambda phi: value(point_of(phi)), name="scipy.optimize"),
                method,
                initial=dict(zip(space.names, map(float, start[free]), strict=True)),
                max_solves=max_solves if maxfev is None else maxfev,
                tolerance=ftarget,
                seed=seed,
                dispatcher=watch,
                callback=watch,
            )
        except _CallbackStoppedError:
            return watch.result()
        return OptimizeResult(
            x=point_of(found.phi),
            fun=found.loss,
            success=True,
            status=0,
            message=found.stop_reason,
            nfev=found.solves,
            nit=found.rounds,
        )

    return run


def _check_options(options: dict[str, Any], method: str) -> None:
    if options.pop("constraints", None):
        raise InputError("constraints are not supported, only bounds")
    for name, what in UNUSED_ARGUMENTS.items():
        if options.pop(name, None) is not None:
            message = f"Method {method} does not use {what} ({name})."
            warnings.warn(message, RuntimeWarning, stacklevel=4)
    for name in options:
        if name in REFUSED_ARGUMENTS:
            raise InputError(f"{name} is not supported: {REFUSED_ARGUMENTS[name]}")
        raise InputError(f"unknown option {name!r}; options are maxfev and ftarget")


def _bounds(bounds: Any, start: FloatArray) -> tuple[FloatArray, FloatArray]:  # noqa: ANN401
    if bounds is None:
        raise InputError("bounds must be given: they tell where to search and on which scale")
    if isinstance(bounds, Bounds):
        sides = [np.broadcast_to(np.asarray(s, float), start.shape) for s in (bounds.lb, bounds.ub)]
    else:
        pairs = np.array([[np.nan if v is None else v for v in pair] for pair in bounds], float)
        if pairs.shape != (start.size, 2):
            raise InputError(f"bounds must be {start.size} pairs, got shape {pairs.shape}")
        sides = [pairs[:, 0], pairs[:, 1]]
    lower, upper = sides
    if not np.isfinite(sides).all():
        raise InputError("bounds must be finite on both sides")
    for k, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if low > high:
            raise InputError(f"bounds of x0[{k}] must have lower <= upper, got ({low:g}, {high:g})")
        if not low <= start[k] <= high:
            raise InputError(
                f"x0[{k}] must lie within bounds [{low:g}, {high:g}], got {start[k]:g}"
            )
    return lower, upper


def _value(fun: Callable[..., Any], args: tuple[Any, ...]) -> Callable[[FloatArray], float]:
    """The function as one number; with jac=True scipy has wrapped one that returns a pair."""
    if type(fun).__name__ != "MemoizeJac":
        return lambda x: float(fun(x, *args))
    with_gradient = fun.fun  # type: ignore[attr-defined]

    def value(x: FloatArray) -> float:
        answer = with_gradient(x, *args)
        if not (isinstance(answer, tuple | list) and len(answer) == 2):
            raise InputError(
                "jac=True needs a function that returns its value and its gradient, "
                f"got {type(answer).__name__}"
            )
        return float(answer[0])

    return value


def _fixed(x: FloatArray, fun: float) -> OptimizeResult:
    message = "all variables are fixed by bounds"
    return OptimizeResult(x=x, fun=fun, success=True, status=0, message=message, nfev=1, nit=0)


@final
class _Watch:
    """The dispatcher and the callback of a run: a record does not hold the point it belongs to."""

    def __init__(
        self, start: FloatArray, point_of: PointOf, callback: Callable[..., Any] | None
    ) -> None:
        self._dispatcher = default_dispatcher()
        self._point_of, self._callback = point_of, callback
        self._asked: deque[dict[str, float]] = deque()
        self._x, self._fun, self._solves, self._rounds = start.copy(), math.inf, 0, 0
        names = () if callback is None else inspect.signature(callback).parameters
        self._takes_result = set(names) == {"intermediate_result"}

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run a round; its records come in the order of the jobs."""
        self._asked.extend(job.phi for job in jobs)
        return iter(self._dispatcher.run(solve, jobs))

    def close(self) -> None:
        """Let go of the workers."""
        self._dispatcher.close()

    def __call__(self, record: Record) -> None:
        """Tell scipy's callback the best point so far."""
        phi = self._asked.popleft()
        if record.best_loss < self._fun:
            self._x, self._fun = self._point_of(phi), record.best_loss
        self._solves, self._rounds = record.solve, record.round
        if self._callback is None:
            return
        try:
            if self._takes_result:
                self._callback(intermediate_result=self._state())
            else:
                self._callback(self._x.copy())
        except StopIteration as stop:
            raise _CallbackStoppedError from stop

    def _state(self, **more: Any) -> OptimizeResult:  # noqa: ANN401 - fields of the result
        state = {"x": self._x.copy(), "fun": self._fun, "nit": self._rounds, "nfev": self._solves}
        return OptimizeResult(state | more)

    def result(self) -> OptimizeResult:
        """What a run gives that the callback stopped; its round was solved to its end."""
        return self._state(
            success=False,
            status=STOPPED_BY_CALLBACK,
            message="`callback` raised `StopIteration`.",
            nfev=self._solves + len(self._asked),
        )
