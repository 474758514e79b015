"""The README's program, next to Nevergrad at the same number of solves."""

import os

import numpy as np

import zo_bilevel as zb

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"
times = np.linspace(0, 5, 40)


def simulate(phi):  # anything that can only be run
    return np.exp(-phi["damping"] * times) * np.cos(phi["frequency"] * times)


measured = simulate({"damping": 0.3, "frequency": 2.0})
space = zb.Space(damping=zb.Log(0.01, 10), frequency=zb.Real(0.5, 5))
problem = zb.Problem(space, simulate, zb.SquaredError(measured), name="oscillator")


def start(seed):
    random = np.random.default_rng(seed)
    return {"damping": 10 ** random.uniform(-1.5, 0.5), "frequency": random.uniform(1, 4)}


def main():
    print(zb.minimize(problem, max_solves=60))
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "nevergrad:CMA": zb.Nevergrad("CMA"),
        "nevergrad:Cobyla": zb.Nevergrad("Cobyla"),
    }
    seeds = range(3 if SMALL else 10)
    comparison = zb.compare(
        problem, methods, max_solves=60, seeds=seeds, initial=start, target_loss=1e-6
    )
    print(comparison.table())
    print("picture:", comparison.plot("quickstart.png"))


if __name__ == "__main__":
    main()
