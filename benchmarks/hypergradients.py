"""Memory, time and accuracy of the hypergradients of differentiable inner loops.

python benchmarks/hypergradients.py memory cosine            # minutes on a CPU
python benchmarks/hypergradients.py condensation two-phase   # longer; --device cuda --size full
"""

import argparse
import statistics
import time

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.adapters.functional_training import FunctionalSGD, FunctionalTraining
from zo_bilevel.evaluator import Evaluator
from zo_bilevel.methods.base import Method

MIB = 1 << 20
DIRECTIONS = 32


def network_problem(num_steps, device="cpu", width=256, rows=256):
    """A three-layer network trained on the whole set; phi: a rate per layer and a decay."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        inputs, targets = torch.randn(rows, 64), torch.randint(10, (rows,))
        module = torch.nn.Sequential(
            torch.nn.Linear(64, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, 10),
        ).to(device)
    inputs, targets = inputs.to(device), targets.to(device)

    def loss(model, batch, phi):
        return torch.nn.functional.cross_entropy(model(inputs), targets)

    def rates(phi, t):
        return {name: phi["rates"][int(name[0]) // 2] for name, _ in module.named_parameters()}

    training = FunctionalTraining(module, loss, FunctionalSGD(rates, 0.9, "decay"))
    loop = training.unroll(num_steps)

    def outer(weights, phi):
        return torch.nn.functional.cross_entropy(training.model(weights)(inputs), targets)

    space = zb.Space(rates=zb.Log(1e-4, 0.1, shape=(3,)), decay=zb.Log(1e-6, 1e-2))
    return zb.Problem(space, loop, loop.outer(outer))


START = {"rates": np.full(3, 1e-2), "decay": 1e-4}


def run_plain(num_steps, device):
    started = time.perf_counter()
    network_problem(num_steps, device).inner(START, seed=0)
    return time.perf_counter() - started


def run_estimator(num_steps, device, estimator):
    started = time.perf_counter()
    zb.hypergradient(network_problem(num_steps, device), START, estimator=estimator)
    return time.perf_counter() - started


def memory(device, **_):
    """Peak memory and time of one hypergradient against inner steps, each in its own process."""
    print("steps  what         peak MiB   times plain   seconds   times plain")
    for steps in (10, 100, 1000):
        runs = {
            "plain run": (run_plain, steps, device),
            "FG2U(1)": (run_estimator, steps, device, zb.FG2U(1)),
            "FG2U(4)": (run_estimator, steps, device, zb.FG2U(4)),
            "RGU": (run_estimator, steps, device, zb.ReverseUnroll()),
        }
        for name, (function, *arguments) in runs.items():
            seconds, peak = zb.peak_memory(function, *arguments)
            held = (peak.gpu_bytes or peak.cpu_bytes) / MIB
            if name == "plain run":
                plain = held, seconds
            print(
                f"{steps:5}  {name:10} {held:10.1f} {held / plain[0]:12.2f} "
                f"{seconds:10.3f} {seconds / plain[1]:12.2f}",
                flush=True,
            )


def flat(gradient):
    return np.concatenate([np.ravel(value) for value in gradient.values()])


def cosine(device, size, seconds, **_):
    """Cosine to the exact hypergradient when every estimator has the same time."""
    task = tasks.load("condensation", size=size, device=device)
    start = task.start(0)
    exact = flat(zb.hypergradient(task.problem, start, estimator=zb.ReverseUnroll()))
    estimators = {
        "FG2U(32)": zb.FG2U(DIRECTIONS),
        "FG2UZO(32)": zb.FG2UZO(DIRECTIONS, radius=1e-2),
        "TRGU(T/3)": zb.TruncatedUnroll(max(1, task.problem.inner.built.loop.num_steps // 3)),
        "Hessian-free": zb.HessianFree(),
        "Neumann(10)": zb.Neumann(10),
        "RGU": zb.ReverseUnroll(),
    }
    print(f"estimator       hypergradients in {seconds:g} s   cosine to the exact one")
    for name, estimator in estimators.items():
        total, count, started = np.zeros_like(exact), 0, time.perf_counter()
        while count == 0 or time.perf_counter() - started < seconds:
            # one inner seed, other directions: the truth is that of this inner loop
            total += flat(one_draw(task.problem, start, estimator, count))
            count += 1
        alike = total @ exact / (np.linalg.norm(total) * np.linalg.norm(exact))
        print(f"{name:14} {count:20} {alike:20.3f}", flush=True)


def one_draw(problem, start, estimator, draw):
    x = problem.space.encode(start)
    plan = estimator.plan(problem.space, x, np.random.default_rng([1, draw]), (0,))
    evaluator = Evaluator(problem, zb.Serial(), 0)
    evaluations = evaluator.evaluate(plan.points)
    sketch = estimator.sketch(plan, evaluations, evaluator.bound)
    gradient, _ = sketch.hypergradient(evaluator.bound)
    return problem.space.named_gradient(x, gradient)


def condensation(device, size, seconds, seeds, **_):
    """Test accuracy of condensed digits, the same time for every estimator."""
    task = tasks.load("condensation", size=size, device=device)
    steps = task.problem.inner.built.loop.num_steps
    estimators = {
        "TRGU(T/10)": zb.TruncatedUnroll(max(1, steps // 10)),
        "Hessian-free": zb.HessianFree(),
        "Neumann(10)": zb.Neumann(10),
        "FG2U(32)": zb.FG2U(DIRECTIONS),
        "RGU": zb.ReverseUnroll(),
    }
    print(f"estimator       test accuracy % after {seconds:g} s, {seeds} seeds")
    started_at = [1 - task.error(task.start(seed)) for seed in range(seeds)]
    print(f"{'real images':14} {spread(started_at)}", flush=True)
    for name, estimator in estimators.items():
        found = []
        for seed in range(seeds):
            method = zb.GradientMethod(estimator, lr=0.1)
            found.append(1 - task.error(descend(task, method, seconds, seed)))
        print(f"{name:14} {spread(found)}", flush=True)


def descend(task, method, seconds, seed):
    """The last point, not the luckiest: each loss is of another network."""
    points = {}

    class Last(Method):
        name = "last"

        def rounds(self, search):
            inner = method.rounds(search)
            evaluations = None
            while True:
                asked = next(inner) if evaluations is None else inner.send(evaluations)
                points["last"] = asked[0].x
                evaluations = yield asked

    zb.minimize(
        task.problem,
        Last(),
        initial=task.start(seed),
        max_seconds=seconds,
        max_solves=10**9,
        seed=seed,
    )
    return task.problem.space.decode(points["last"])


def spread(values):
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{100 * statistics.mean(values):6.2f} +- {100 * deviation:.2f}"


def two_phase(device, size, seconds, seeds, **_):
    """A biased phase, then FG2U, against each alone in the same time."""
    task = tasks.load("condensation", size=size, device=device)
    steps = task.problem.inner.built.loop.num_steps
    cheap = zb.GradientMethod(zb.TruncatedUnroll(max(1, steps // 3)), lr=0.1)
    exact = zb.GradientMethod(zb.FG2U(DIRECTIONS), lr=0.1)
    switch = zb.SignalToNoise(below=2.0, window=10, max_solves=200)
    methods = {
        "TRGU(T/3)": cheap,
        "FG2U(32)": exact,
        "two phases": zb.TwoPhase([(cheap, switch), (exact, None)], start_from="last"),
    }
    print(f"method          test accuracy % after {seconds:g} s, {seeds} seeds")
    for name, method in methods.items():
        found = [1 - task.error(descend(task, method, seconds, seed)) for seed in range(seeds)]
        print(f"{name:14} {spread(found)}", flush=True)


SECTIONS = {
    "memory": memory,
    "cosine": cosine,
    "condensation": condensation,
    "two-phase": two_phase,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=sorted(SECTIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="small")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each run")
    parser.add_argument("--seeds", type=int, default=5)
    options = vars(parser.parse_args())
    for name in options.pop("sections"):
        print(f"\n{name}: {SECTIONS[name].__doc__}")
        SECTIONS[name](**options)


if __name__ == "__main__":
    main()
