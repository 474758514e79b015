"""Find what goes on in a queue from how long people waited: a simulation with noise, by simpy.

Customers come at random, wait for one of three clerks, and leave when their patience ends. theta is
how many were served and left, and quantiles of the waiting time. Every run gives other numbers: it
takes a seed, methods see noise, and the final point is judged on fresh seeds.
Needs: pip install simpy "zo-bilevel[baselines,plot]"
"""

import os
import sys

import numpy as np

import zo_bilevel as zb

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"
try:
    import simpy
except ImportError:
    print("simpy is not installed: pip install simpy")
    sys.exit(0)

truth = {"arrivals_per_hour": 40.0, "service_minutes": 4.0, "patience_minutes": 6.0}
space = zb.Space(
    arrivals_per_hour=zb.Log(20, 80),
    service_minutes=zb.Log(2, 8),
    patience_minutes=zb.Log(2, 20),
)


def simulate(phi, seed=None, hours=24):
    random, waits, left = np.random.default_rng(seed), [], []
    environment = simpy.Environment()
    clerks = simpy.Resource(environment, capacity=3)

    def customer():
        came = environment.now
        patience = random.exponential(phi["patience_minutes"])
        with clerks.request() as turn:
            yield turn | environment.timeout(patience)
            (waits if turn.triggered else left).append(environment.now - came)
            if turn.triggered:
                yield environment.timeout(random.exponential(phi["service_minutes"]))

    def arrivals():
        while True:
            yield environment.timeout(random.exponential(60 / phi["arrivals_per_hour"]))
            environment.process(customer())

    environment.process(arrivals())
    environment.run(until=60 * hours)
    tens_an_hour = [len(waits) / hours / 10, len(left) / hours / 10]
    return np.array([*tens_an_hour, *np.quantile(waits, [0.5, 0.7, 0.8, 0.9, 0.95])])


def start(seed):
    random = np.random.default_rng(seed)
    return {name: value * 2 ** random.uniform(-0.8, 0.8) for name, value in truth.items()}


measured = simulate(truth, seed=12345, hours=24 * 7)
problem = zb.Problem(space, simulate, zb.SquaredError(measured), name="queue")


def main():
    print(zb.doctor(problem), "\n")
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "nevergrad:CMA": zb.Nevergrad("CMA"),
        "nevergrad:TBPSA": zb.Nevergrad("TBPSA"),  # Nevergrad's own choice under noise
    }
    budget = {"max_solves": 40, "seeds": range(3)} if SMALL else {"max_solves": 150}
    comparison = zb.compare(problem, methods, initial=start, **budget)
    print(comparison.table())
    print("picture:", comparison.plot("queue.png"))


if __name__ == "__main__":
    main()
