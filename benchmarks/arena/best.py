"""The smallest known loss of every problem without noise, from long runs, in `best.json`.

    python -m benchmarks.arena.best

Systems that have a root, and data without error, have 0. Of the others, each is the lowest that
scipy's `least_squares` finds with three-point differences and tolerances of rounding: `trf`,
`dogbox` and `lm` in turn, from the start, five starts near it, the truth or the certified values,
and the best of those again, inside the box where it belongs to the problem. Delete a line to
search that problem anew.
"""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from scipy import optimize

from benchmarks.arena.problem import HUGE, ArenaProblem, FloatArray

FILE = Path(__file__).parent / "best.json"
START = re.compile(r"(-x10|-start\d)$")
STARTS = 5
TIGHT = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "jac": "3-point"}


@cache
def _known() -> dict[str, float]:
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.exists() else {}


def root_name(problem: ArenaProblem) -> str:
    """The problem without its variant and start: noise, width and start change no minimum."""
    return START.sub("", "/".join(problem.name.split("/")[:2]))


def smallest_loss(problem: ArenaProblem) -> float:
    """Smallest known noiseless loss.

    Args:
        problem: Of the catalogue; one that is not in the file yet has its published value.

    Raises:
        KeyError: If there is neither.
    """
    known = _known().get(root_name(problem))
    if known is None:
        if problem.smallest is None:
            raise KeyError(f"{problem.name}: run `python -m benchmarks.arena.best` first")
        known = problem.smallest / problem.target.size
    return min(known, problem.start_loss)


def long_search(problem: ArenaProblem, seed: int = 0) -> float:
    """The lowest loss of many long runs; of fields, of one from the truth.

    Args:
        problem: Without noise, of squares.
        seed: Of the starts.
    """
    starts = [] if problem.truth is None else [problem.truth]
    if problem.group != "fields":
        rng, reach = np.random.default_rng(seed), np.maximum(1.0, np.abs(problem.start))
        near = (problem.start + reach * rng.uniform(-1, 1, reach.size) for _ in range(STARTS))
        starts += [problem.start, *near]
    ends = [_polish(problem, np.clip(row, problem.lower, problem.upper)) for row in starts]
    loss, x = min(ends, key=lambda pair: pair[0])
    return loss if problem.group == "fields" else min(loss, _polish(problem, x)[0])


def _polish(problem: ArenaProblem, start: FloatArray) -> tuple[float, FloatArray]:
    def residuals(x: FloatArray) -> FloatArray:
        return np.clip(np.nan_to_num(problem.theta(x) - problem.target, nan=HUGE), -HUGE, HUGE)

    best = (problem.true_loss(start), start)
    free = (-np.inf, np.inf)
    bounds = (problem.lower, problem.upper) if problem.has_bounds else free
    for method in ("trf",) if problem.group == "fields" else ("trf", "dogbox", "lm"):
        if method == "lm" and (problem.has_bounds or problem.target.size < problem.size):
            continue
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = optimize.least_squares(
                    residuals,
                    best[1],
                    method=method,
                    bounds=bounds,
                    max_nfev=30 if problem.group == "fields" else 300,
                    **TIGHT,
                )
        except (ValueError, np.linalg.LinAlgError):
            continue
        best = min(best, (problem.true_loss(found.x), found.x), key=lambda pair: pair[0])
    return best


def main() -> None:
    """Search the problems without noise that are not in the file yet, and write it."""
    from benchmarks.arena.catalogue import all_problems
    from benchmarks.arena.outer import smallest_outer

    before = _known()
    known = dict(before)
    for problem in all_problems():
        name = root_name(problem)
        if name in before or problem.noise is not None or problem.group == "wide":
            continue
        if problem.smallest == 0.0:
            found = 0.0
        elif problem.outer is None:
            found = long_search(problem)
        else:
            found = smallest_outer(problem, known)
        known[name] = min(found, known.get(name, np.inf))
        print(f"{problem.name:45} {found * problem.target.size:.8g}", flush=True)
        FILE.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
