"""A run with a store and worker processes, for tests that interrupt or kill it.

Usage: stored_run.py STORE LOG WORKERS METHOD SOLVES: each solve adds a line to LOG when it starts;
the history is printed to the last bit.
"""

import os
import sys
import time

import numpy as np

import zo_bilevel as zb


def inner(phi):
    with open(sys.argv[2], "a", buffering=1) as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(0.02)
    return np.sin(phi["a"]) * np.arange(1.0, 5.0)


class Walk(zb.Method):
    """Four steps at once from the best point; starts faster than what needs torch."""

    name = "walk"

    def rounds(self, search):
        (best,) = yield [zb.Point(search.start)]
        step = 1.0
        for number in range(1000):
            draws = search.rng(number).normal(size=(4, search.start.size))
            xs = np.clip(best.point.x + step * draws, -3, 3)
            found = yield [zb.Point(x, (number,)) for x in xs]
            lowest = min([best, *found], key=lambda evaluation: evaluation.loss)
            step *= 1.1 if lowest is not best else 0.8
            best = lowest
        return "walked enough"


def main():
    problem = zb.Problem(
        zb.Space(a=zb.Real(-3, 3, (4,))), inner, zb.SquaredError(np.ones(4)), name="stored-run"
    )
    with zb.Joblib(n_jobs=int(sys.argv[3])) as dispatcher:
        result = zb.minimize(
            problem,
            Walk() if sys.argv[4] == "walk" else zb.GradientMethod(zb.FG2UZO(4)),
            max_solves=int(sys.argv[5]),
            store=sys.argv[1],
            dispatcher=dispatcher,
            round_width=4,
        )
    print([(r.loss.hex(), r.status) for r in result.history])
    print(result.x.tobytes().hex(), result.theta.tobytes().hex(), result.stop_reason)


main()
