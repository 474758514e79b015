"""Find pipe roughness and demand of a water network from pressures, with EPANET through wntr.

The network is Net3, which comes with wntr: 92 junctions, whose pressures are averaged over a day.
Needs: pip install wntr six "zo-bilevel[baselines,plot]"
"""

import os
import sys
import tempfile
import warnings

import numpy as np

import zo_bilevel as zb

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wntr
except ImportError:
    print("wntr is not installed: pip install wntr six")
    sys.exit(0)

truth = {"old_pipes": 0.75, "new_pipes": 1.1, "demand": 1.15}
space = zb.Space(old_pipes=zb.Log(0.4, 2.5), new_pipes=zb.Log(0.4, 2.5), demand=zb.Log(0.5, 2.0))


def pressures(phi):
    """Mean pressure of every junction, in metres; the parameters are factors."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        network = wntr.network.WaterNetworkModel("Net3")
        for _, pipe in network.pipes():
            pipe.roughness *= phi["old_pipes" if pipe.diameter < 0.35 else "new_pipes"]
        network.options.hydraulic.demand_multiplier = phi["demand"]
        network.options.time.duration = 24 * 3600
        simulator = wntr.sim.EpanetSimulator(network)
        heads = simulator.run_sim(file_prefix=os.path.join(folder, "net3")).node["pressure"]
    return heads[network.junction_name_list].mean().to_numpy()


def is_plausible(theta, phi):
    """EPANET answers some bad values with pressures of -9e6 m instead of an error."""
    return bool(theta.min() > -1000)


def start(seed):
    random = np.random.default_rng(seed)
    return {name: 2 ** random.uniform(-0.5, 0.5) for name in truth}


measured = pressures(truth) + np.random.default_rng(0).normal(0, 0.05, 92)  # a sensor's error
misfit = zb.SquaredError(measured)
problem = zb.Problem(space, pressures, misfit, name="water network", valid=is_plausible)


def main():
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "nevergrad:CMA": zb.Nevergrad("CMA"),
        "nevergrad:Cobyla": zb.Nevergrad("Cobyla"),
    }
    budget = {"max_solves": 25, "seeds": range(3)} if SMALL else {"max_solves": 100}
    comparison = zb.compare(problem, methods, initial=start, target_loss=0.003, **budget)
    best = min(comparison.runs, key=lambda run: run.loss)
    found = ", ".join(f"{name} {value:.3f}" for name, value in best.phi.items())
    print(f"best of all, {best.method}: {found} (made with {truth})\n")
    print(comparison.table())
    print("picture:", comparison.plot("water_network.png"))


if __name__ == "__main__":
    main()
