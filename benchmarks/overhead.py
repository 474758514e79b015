"""Our own time per solve, with an inner solver that does nothing, against Nevergrad and pycma.

All methods run through `minimize`, so they pay for the same loop and ledger; the last two columns
are the libraries driven bare, by their own ask and tell. Prints microseconds and ratios to pycma.
"""

import time

import cma
import nevergrad as ng
import numpy as np

import zo_bilevel as zb

SOLVES = {10: 2000, 100: 1000, 1000: 300}


def problem(size, *, vector):
    space = zb.Space(a=zb.Real(-3, 3, (size,)))
    if vector:
        answer = np.ones(2 * size)
        return zb.Problem(space, lambda phi: answer, zb.SquaredError(2 * answer), name="nothing")
    return zb.Problem(space, lambda phi: 1.0, name="nothing")


def per_solve(run, solves):
    started = time.perf_counter()
    spent = run()
    return (time.perf_counter() - started) / max(spent or solves, 1) * 1e6


def through_minimize(method, size, solves, *, vector):
    def run():
        return zb.minimize(problem(size, vector=vector), method, max_solves=solves).solves

    run()  # imports and first-use costs are not a solve's
    return per_solve(run, solves)


def bare_pycma(size, solves):
    strategy = cma.CMAEvolutionStrategy(np.zeros(size), 1.0, {"verbose": -9, "seed": 1})

    def run():
        spent = 0
        while spent < solves:
            points = strategy.ask()
            strategy.tell(points, [float(np.sum(p**2)) for p in points])
            spent += len(points)
        return spent

    return per_solve(run, solves)


def bare_nevergrad(size, solves):
    optimizer = ng.optimizers.registry["CMA"](ng.p.Array(shape=(size,)), budget=solves)

    def run():
        for _ in range(solves):
            candidate = optimizer.ask()
            optimizer.tell(candidate, float(np.sum(candidate.value**2)))
        return solves

    return per_solve(run, solves)


def main():
    print("microseconds a solve (ratio to bare pycma); the inner solver does nothing")
    for size, solves in SOLVES.items():
        pycma = bare_pycma(size, solves)
        rows = {
            "bare pycma": pycma,
            "bare nevergrad CMA": bare_nevergrad(size, solves),
            "cma, minimize": through_minimize(zb.CMA(), size, solves, vector=False),
            "random, minimize": through_minimize(zb.RandomSearch(), size, solves, vector=False),
            "zo-adam, minimize": through_minimize(zb.GradientMethod(), size, solves, vector=True),
            "gauss-newton, minimize": through_minimize(
                zb.GaussNewton(), size, min(solves, 3 * size), vector=True
            ),
            "trust-region, minimize": through_minimize(
                zb.TrustRegion(), size, min(solves, 300), vector=False
            ),
        }
        print(f"N = {size}")
        for name, cost in rows.items():
            print(f"  {name:24s} {cost:9.0f}  ({cost / pycma:5.2f})")


if __name__ == "__main__":
    main()
