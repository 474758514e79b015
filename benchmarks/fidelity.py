"""Cost to target with cheap solves and without: `python -m benchmarks.fidelity [FIGURE.svg]`.

Three equations of the tasks with fewer steps in time, the fit of 300 weights with fewer iterations,
the training of a network whose penalties are tuned by its outputs, with fewer iterations, and of
one whose kind and rates are tuned by its loss, with fewer epochs. The default method on levels, the
same at the full level alone, and Optuna's Hyperband; five seeds draw the starts. Cost is in full
solves.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import softmax

import zo_bilevel as zb
from zo_bilevel.tasks import ridge, spectral
from zo_bilevel.tasks.digits import load_digits
from zo_bilevel.tasks.pde import PAPER_ROWS

SEEDS = range(5)
MOST_FULL_SOLVES = 60


class FullOnly(zb.DefaultMethod):
    """The default method as it is without levels."""

    def rounds(self, search):
        problem = dataclasses.replace(search.problem, fidelity=None)
        return super().rounds(dataclasses.replace(search, problem=problem))


METHODS = {
    "on levels": zb.DefaultMethod,
    "full level only": FullOnly,
    "Hyperband (Optuna)": zb.OptunaHyperband,
}


@dataclasses.dataclass
class Case:
    problem: zb.Problem
    start: Callable[[int], dict]
    target: float
    full_cost: float


def equation(name, cheap):
    """Steps between two of the eight observed times are the level."""
    row, own = PAPER_ROWS[name], spectral.EQUATIONS[name]
    simulate, full = getattr(spectral, f"simulate_{name}"), own.num_steps // 8

    def inner(phi):
        theta = simulate(phi["nu"], num_points=own.num_points, num_steps=8 * phi["steps"])
        return zb.WithCost(theta, phi["steps"])

    def start(seed):
        draw = row.upper * (1.0 - np.random.default_rng(seed).random())
        return {"nu": max(draw, row.lower)}

    outer = zb.SquaredError(spectral.observations(name))
    fidelity = zb.Fidelity("steps", cheap, full)
    space = zb.Space(nu=zb.Log(row.lower, row.upper))
    problem = zb.Problem(space, inner, outer, name=name, fidelity=fidelity)
    return Case(problem, start, 1e-6, full)


def ridge_weights():
    """Ridge regression of 300 weights by conjugate gradients, one penalty for ten features."""
    data = ridge.ridge_data()

    def inner(phi):
        scaled = data.inputs * np.exp(-np.repeat(phi["penalties"], 10))
        matrix = scaled @ data.inputs.T + np.eye(len(data.outputs))
        dual, left = np.zeros(len(data.outputs)), data.outputs.copy()
        way, size = left.copy(), left @ left
        for _ in range(phi["iterations"]):
            if size < 1e-28:
                break
            image = matrix @ way
            length = size / (way @ image)
            dual, left = dual + length * way, left - length * image
            before, size = size, left @ left
            way = left + size / before * way
        return zb.WithCost(data.validation_inputs @ (scaled.T @ dual), phi["iterations"])

    def start(seed):
        return {"penalties": np.random.default_rng(seed).uniform(-4.0, 4.0, 30)}

    space = zb.Space(penalties=zb.Real(-8.0, 8.0, (30,)))
    fidelity = zb.Fidelity("iterations", 12, 120)
    outer = zb.SquaredError(data.validation_outputs)
    problem = zb.Problem(space, inner, outer, name="ridge", fidelity=fidelity)
    return Case(problem, start, 1.0, 120)


def network_penalties():
    """A network of twelve hidden units on few images, trained by L-BFGS: a penalty for each row of
    pixels and one for the last layer, tuned by what it says of other images."""
    digits = load_digits(num_train=200)
    (images, labels), (others, answers) = (
        (part[0].flatten(1)[:200].double().numpy(), part[1][:200].numpy())
        for part in (digits.train, digits.validation)
    )
    places, hidden = np.arange(len(labels)), 12
    split, size = 64 * hidden, 64 * hidden + hidden * 10
    start_weights = 0.2 * np.random.default_rng(0).normal(size=size)

    def layers(weights):
        return weights[:split].reshape(64, hidden), weights[split:].reshape(hidden, 10)

    def inner(phi):
        logs = [np.repeat(phi["rows"], 8 * hidden), np.full(size - split, phi["last"])]
        penalty = np.exp(np.concatenate(logs))

        def loss(weights):
            first, last = layers(weights)
            bent = np.tanh(images @ first)
            shares = softmax(bent @ last, axis=1)
            value = -np.log(shares[places, labels] + 1e-300).mean()
            shares[places, labels] -= 1.0
            back = (shares @ last.T) * (1.0 - bent**2)
            slopes = np.concatenate([(images.T @ back).ravel(), (bent.T @ shares).ravel()])
            return value + 0.5 * (penalty * weights) @ weights, slopes / len(labels) + (
                penalty * weights
            )

        rules = {"maxiter": int(phi["iterations"]), "maxfun": 10**6, "ftol": 0, "gtol": 1e-9}
        trained = minimize(loss, start_weights, jac=True, method="L-BFGS-B", options=rules)
        first, last = layers(trained.x)
        return zb.WithCost(np.tanh(others @ first) @ last, phi["iterations"])

    def start(seed):
        rng = np.random.default_rng(seed)
        return {"rows": rng.uniform(-7.0, -2.0, 8), "last": rng.uniform(-7.0, -2.0)}

    space = zb.Space(rows=zb.Real(-8.0, 0.0, (8,)), last=zb.Real(-8.0, 0.0))
    fidelity, outer = zb.Fidelity("iterations", 20, 200), zb.CrossEntropy(answers)
    problem = zb.Problem(space, inner, outer, name="network penalties", fidelity=fidelity)
    return Case(problem, start, 0.26, 200)


def network():
    """A network on few images; its kind, size, rule and rates are tuned by the loss alone."""
    digits = load_digits(num_train=200)
    (images, labels), (others, answers) = (
        (part[0].flatten(1), part[1]) for part in (digits.train, digits.validation)
    )
    bends = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}
    rules = {
        "sgd": lambda p, **o: torch.optim.SGD(p, **o),
        "momentum": lambda p, **o: torch.optim.SGD(p, momentum=0.9, **o),
        "adam": lambda p, lr, **o: torch.optim.Adam(p, lr=0.1 * lr, **o),
    }

    def inner(phi):
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Linear(64, phi["width"]),
            bends[phi["bend"]](),
            torch.nn.Linear(phi["width"], 10),
        )
        rule = rules[phi["rule"]](network.parameters(), lr=phi["rate"], weight_decay=phi["decay"])
        for _ in range(phi["epochs"]):
            rule.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            rule.step()
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(network(others), answers)
        return zb.WithCost(float(loss.nan_to_num(1e3, 1e3).clamp(max=1e3)), phi["epochs"])

    def start(seed):
        rng = np.random.default_rng(seed)
        return {"rate": 10.0 ** rng.uniform(-3, 0), "decay": 10.0 ** rng.uniform(-5, -1)}

    space = zb.Space(
        bend=zb.Choice(list(bends)),
        rule=zb.Choice(list(rules)),
        width=zb.Integer(4, 64),
        rate=zb.Log(1e-3, 1.0),
        decay=zb.Log(1e-5, 0.1),
    )
    problem = zb.Problem(space, inner, name="network", fidelity=zb.Fidelity("epochs", 6, 162))
    return Case(problem, start, 0.25, 162)


CASES = {
    "burgers": lambda: equation("burgers", 6),
    "kdv": lambda: equation("kdv", 8),
    "allen-cahn": lambda: equation("allen_cahn", 2),
    "ridge weights": ridge_weights,
    "network penalties": network_penalties,
    "network": network,
}


def costs(case, method):
    """Cost of each seed until the target, in full solves."""
    found = []
    for seed in SEEDS:
        result = zb.minimize(
            case.problem,
            method(),
            initial=case.start(seed),
            max_cost=MOST_FULL_SOLVES * case.full_cost,
            tolerance=case.target,
            seed=seed,
        )
        reached = (r.cost for r in result.history if r.best_loss <= case.target)
        found.append(next(reached, np.inf) / case.full_cost)
    return found


def main(figure=None):
    torch.set_num_threads(1)
    rows = {}
    for name, make in CASES.items():
        case = make()
        rows[name] = {label: costs(case, method) for label, method in METHODS.items()}
        for label, found in rows[name].items():
            share = np.median(found) / np.median(rows[name]["full level only"])
            shown = ", ".join(f"{cost:.1f}" for cost in found)
            print(f"{name:17} {label:20} median {np.median(found):6.2f} [{shown}] {share:.2f}")
    if figure:
        draw(rows, figure)


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for place, label in enumerate(METHODS):
        at = np.arange(len(rows)) + 0.27 * (place - 1)
        found = np.array([rows[name][label] for name in rows])
        shown = np.where(np.isfinite(found), found, MOST_FULL_SOLVES)
        axes.bar(at, np.median(shown, axis=1), 0.25, label=label, alpha=0.75)
        axes.plot(np.repeat(at, found.shape[1]), shown.ravel(), "k.", markersize=3)
    axes.set_xticks(np.arange(len(rows)), rows)
    axes.set_ylabel("cost to target, in full solves")
    axes.set_yscale("log")
    axes.axhline(MOST_FULL_SOLVES, color="grey", linewidth=0.5)
    axes.legend(frameon=False, fontsize=8)
    fig.savefig(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
