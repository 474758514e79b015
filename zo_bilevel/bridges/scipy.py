"""Our methods behind `scipy.optimize.minimize(..., method=...)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, OptimizeResult

from zo_bilevel.errors import InputError
from zo_bilevel.loop import minimize
from zo_bilevel.methods.base import Method
from zo_bilevel.parameters import Real
from zo_bilevel.problem import Problem
from zo_bilevel.result import Record
from zo_bilevel.space import Space

FloatArray: TypeAlias = NDArray[np.float64]
IGNORED = ("jac", "hess", "hessp", "constraints")


def scipy_method(
    method: Method | None = None, *, seed: int = 0, max_solves: int = 1000
) -> Callable[..., OptimizeResult]:
    """A callable for the `method` argument of `scipy.optimize.minimize`.

    Args:
        method: How to search; default `DefaultMethod()`.
        seed: Seed of the search.
        max_solves: Calls of the function; `options={"maxfev": ...}` comes before it.

    Returns:
        The callable. It needs finite `bounds`, which also tell the scale; it takes the options
        `maxfev` and `ftarget` (stop at or below this value), and a `callback`.

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

    def run(
        fun: Callable[..., float],
        x0: Sequence[float],
        args: tuple[Any, ...] = (),
        bounds: Any = None,  # noqa: ANN401 - Bounds or pairs
        callback: Callable[..., Any] | None = None,
        maxfev: int | None = None,
        ftarget: float | None = None,
        **options: Any,  # noqa: ANN401 - scipy's, checked below
    ) -> OptimizeResult:
        _check_options(options)
        start = np.atleast_1d(np.asarray(x0, dtype=np.float64))
        lower, upper = _bounds(bounds, start.size)
        outside = (start < lower) | (start > upper)
        if outside.any():
            raise InputError(f"x0 must lie within bounds, got {start[outside][0]}")
        space = Space({f"x{k}": Real(lower[k], upper[k]) for k in range(start.size)})
        names = space.names

        def solve(phi: dict[str, float]) -> float:
            return float(fun(np.array([phi[name] for name in names]), *args))

        found = minimize(
            Problem(space, solve, name="scipy.optimize"),
            method,
            initial=dict(zip(names, map(float, start), strict=True)),
            max_solves=max_solves if maxfev is None else maxfev,
            tolerance=ftarget,
            seed=seed,
            callback=_callback(callback),
        )
        return OptimizeResult(
            x=np.array([found.phi[name] for name in names]),
            fun=found.loss,
            success=True,
            status=0,
            message=found.stop_reason,
            nfev=found.solves,
            nit=found.rounds,
        )

    return run


def _check_options(options: dict[str, Any]) -> None:
    if options.get("constraints"):
        raise InputError("constraints are not supported, only bounds")
    unknown = [name for name in options if name not in IGNORED]
    if unknown:
        raise InputError(f"unknown option {unknown[0]!r}; options are maxfev and ftarget")


def _bounds(bounds: Any, size: int) -> tuple[list[float], list[float]]:  # noqa: ANN401
    if bounds is None:
        raise InputError("bounds must be given: they tell where to search and on which scale")
    if isinstance(bounds, Bounds):
        sides = [np.broadcast_to(np.asarray(s, float), (size,)) for s in (bounds.lb, bounds.ub)]
    else:
        pairs = np.array([[np.nan if v is None else v for v in pair] for pair in bounds], float)
        if pairs.shape != (size, 2):
            raise InputError(f"bounds must be {size} pairs, got shape {pairs.shape}")
        sides = [pairs[:, 0], pairs[:, 1]]
    for side in sides:
        if not np.isfinite(side).all():
            raise InputError("bounds must be finite on both sides")
    return [float(v) for v in sides[0]], [float(v) for v in sides[1]]


def _callback(callback: Callable[..., Any] | None) -> Callable[[Record], None] | None:
    """Scipy's newer callbacks take `intermediate_result`; the point itself is not in a record."""
    if callback is None:
        return None
    takes_result = "intermediate_result" in inspect.signature(callback).parameters

    def tell(record: Record) -> None:
        state = OptimizeResult(fun=record.best_loss, nfev=record.solve, nit=record.round)
        if takes_result:
            callback(intermediate_result=state)
        else:
            callback(state)

    return tell
