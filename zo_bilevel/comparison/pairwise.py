"""Who is ahead of whom in a comparison, seed by seed."""

import math
from dataclasses import replace

import numpy as np

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.comparison.statistics import PairedTest, corrected, paired_test
from zo_bilevel.run.runs import Axis, Run


def scores(comparison: Comparison, by: Axis = "solves") -> dict[str, dict[int, float]]:
    """One number for each method and seed, smaller is better; only their order means anything.

    How soon the target was reached; among runs that never reached it, or without a target, the
    loss at the final point.
    """
    keys = {
        (run.method, run.seed): _key(run, comparison, by)
        for run in comparison.runs
        if run.is_counted
    }
    order = {key: float(place) for place, key in enumerate(sorted(set(keys.values())))}
    found: dict[str, dict[int, float]] = {}
    for (method, seed), key in keys.items():
        found.setdefault(method, {})[seed] = order[key]
    return found


def _key(run: Run, comparison: Comparison, by: Axis) -> tuple[float, float]:
    loss = math.inf if np.isnan(run.loss) else run.loss
    if comparison.target is None:
        return 0.0, loss
    step = run.first_at(comparison.target)
    if step is None:
        return math.inf, loss
    return step.at(by), 0.0


def is_repeated(comparison: Comparison, method: str) -> bool:
    """Whether a method gave one and the same run with every seed: no chance, and no new start."""
    runs = [run for run in comparison.runs_of(method) if run.is_counted]
    courses = {(r.solves, r.loss, *((s.solve, s.loss) for s in r.improvements)) for r in runs}
    return len(runs) > 1 and len(courses) == 1


def paired_tests(comparison: Comparison, best: str, by: Axis = "solves") -> tuple[PairedTest, ...]:
    """One method against every other on the seeds that both ran with.

    Returns:
        One test for each other method that has runs that count, p-values corrected for their
        number.
    """
    found = scores(comparison, by)
    if best not in found:
        return ()
    pairs = []
    for other in comparison.methods:
        seeds = [s for s in found[best] if s in found.get(other, {})]
        if other == best or not seeds:
            continue
        if is_repeated(comparison, best) and is_repeated(comparison, other):
            seeds = seeds[:1]  # the same two runs again and again are evidence once
        one, two = ([found[name][seed] for seed in seeds] for name in (best, other))
        pairs.append(paired_test(one, two, (best, other)))
    p_values = corrected([pair.p_value for pair in pairs])
    return tuple(replace(d, p_value=p) for d, p in zip(pairs, p_values, strict=True))
