"""Outer objectives that are not sums of squares, in torch, over simulators and regressions.

Without an error of the data the least is 0 and the truth reaches it; concave transforms of the
mean square are asked where there is an error. A method should never do worse on the vector than on
`problem.scalar`, which sees only the loss: compare with `default/scalar`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import optimize

from benchmarks.arena.problem import ArenaProblem, FloatArray

Outer: TypeAlias = Callable[[Any, Any], Any]
MAX_GROUPS = 50


def log_mean_square(target: torch.Tensor) -> Outer:
    """Gaussian likelihood whose variance is profiled out."""
    return lambda theta, phi: torch.log(((theta - target) ** 2).mean())


def root_mean_square(target: torch.Tensor) -> Outer:
    """The same minimum, without curvature across it where the data fit exactly."""
    return lambda theta, phi: torch.sqrt(((theta - target) ** 2).mean())


def nash_sutcliffe(target: torch.Tensor) -> Outer:
    """One less the efficiency of Nash and Sutcliffe (1970): a ratio of sums of squares."""
    spread = ((target - target.mean()) ** 2).sum()
    return lambda theta, phi: ((theta - target) ** 2).sum() / spread


def kling_gupta(target: torch.Tensor) -> Outer:
    """One less the efficiency of Gupta, Kling, Yilmaz and Martinez (2009)."""
    mean, centred = target.mean(), target - target.mean()
    deviation = centred.square().mean().sqrt()

    def loss(theta: torch.Tensor, phi: object) -> torch.Tensor:
        moved = theta - theta.mean()
        own = moved.square().mean().sqrt()
        correlation = (moved * centred).mean() / (own * deviation)
        ratios = torch.stack([correlation, own / deviation, theta.mean() / mean])
        return ((ratios - 1) ** 2).sum().sqrt()

    return loss


def mean_absolute(target: torch.Tensor) -> Outer:
    """Least absolute deviations."""
    return lambda theta, phi: (theta - target).abs().mean()


def quantile_absolute(target: torch.Tensor) -> Outer:
    """The 0.8 quantile of the absolute deviations."""
    return lambda theta, phi: torch.quantile((theta - target).abs(), 0.8)


TRANSFORMS: dict[str, Callable[[float, FloatArray], float]] = {
    "log-mean-square": lambda loss, target: float(np.log(loss)),
    "root-mean-square": lambda loss, target: float(np.sqrt(loss)),
    "nash-sutcliffe": lambda loss, target: loss / float(target.var()),
}
"""From the smallest mean square to the smallest of each that grows with it."""
WITH_ERROR: dict[str, Callable[[torch.Tensor], Outer]] = {
    "log-mean-square": log_mean_square,
    "root-mean-square": root_mean_square,
    "nash-sutcliffe": nash_sutcliffe,
    "mean-absolute": mean_absolute,
}
WITHOUT_ERROR: dict[str, Callable[[torch.Tensor], Outer]] = {
    "root-mean-square": root_mean_square,
    "kling-gupta": kling_gupta,
    "mean-absolute": mean_absolute,
    "quantile-absolute": quantile_absolute,
}
ROOTS = frozenset(
    [f"simulators/{name}-start1" for name in ("stirred-tank", "tracer", "enzyme", "beam")]
    + [f"simulators/{name}-start1" for name in ("pharmacokinetics", "epidemic", "orbit")]
    + [f"simulators/{name}-start1" for name in ("lotka-volterra", "burgers", "thin-film")]
    + [f"nist/{name}-start2" for name in ("Misra1a", "Chwirut2", "Rat42", "Rat43", "Kirby2")]
)
"""Problems of squares whose model and data are used again."""


def outer_problems(problems: Iterable[ArenaProblem]) -> list[ArenaProblem]:
    """Four objectives on each of `ROOTS`.

    Args:
        problems: Of squares.
    """
    found = []
    for root in problems:
        if root.name not in ROOTS:
            continue
        has_error = root.smallest != 0.0
        target = torch.from_numpy(root.target)
        for name, make in (WITH_ERROR if has_error else WITHOUT_ERROR).items():
            found.append(
                replace(
                    root,
                    name=f"outer/{root.name.split('/')[1]}--{name}",
                    group="outer",
                    outer=make(target),
                    smallest=None if has_error else 0.0,
                    max_groups=MAX_GROUPS,
                )
            )
    return found


def smallest_outer(problem: ArenaProblem, known: Mapping[str, float]) -> float:
    """Smallest known loss where the data have an error.

    Args:
        problem: Of `outer_problems`.
        known: Smallest mean squares by name.
    """
    stem, name = problem.name.removeprefix("outer/").split("--")
    if name in TRANSFORMS:
        model = stem.rpartition("-start")[0]
        root = next(name for name in known if name.endswith(f"/{model}"))
        return TRANSFORMS[name](known[root], problem.target)
    x = problem.start if problem.truth is None else problem.truth
    for scale in np.geomspace(1.0, 1e-9, 28) * np.ptp(problem.target):
        x = optimize.least_squares(  # soft_l1 of a small scale is the absolute value
            lambda row: problem.theta(row) - problem.target,
            x,
            jac="3-point",
            loss="soft_l1",
            f_scale=scale,
            x_scale="jac",
            bounds=(problem.lower, problem.upper),
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
            max_nfev=300,
        ).x
    polished = optimize.minimize(
        problem.true_loss, x, method="Nelder-Mead", options={"xatol": 1e-13, "fatol": 1e-15}
    )
    return min(problem.true_loss(x), float(polished.fun))
