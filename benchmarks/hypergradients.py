"""Memory, time and accuracy of the hypergradients of differentiable inner loops.

python benchmarks/hypergradients.py memory cosine   # minutes on a CPU
"""

import argparse
import statistics
import time

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.adapters import FunctionalSGD, FunctionalTraining
from zo_bilevel.run.evaluator import Evaluator

MIB = 1 << 20


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


def clock_of(device):
    """Seconds of this process on a CPU that others may share, of the wall on a GPU."""
    return time.process_time if device == "cpu" else time.perf_counter


def run_plain(num_steps, device):
    problem = network_problem(num_steps, device)
    return typical_seconds(num_steps, device, lambda: problem.inner(START, seed=0))


def run_estimator(num_steps, device, estimator):
    problem = network_problem(num_steps, device)
    return typical_seconds(
        num_steps, device, lambda: zb.hypergradient(problem, START, estimator=estimator)
    )


def typical_seconds(num_steps, device, run):
    """Of three runs after a first one, which checks the loop; of one where that is dear."""
    clock, seconds = clock_of(device), []
    if num_steps <= 100:
        run()
    for _ in range(3 if num_steps <= 100 else 1):
        started = clock()
        run()
        seconds.append(clock() - started)
    return statistics.median(seconds)


def memory(device, **_):
    """Peak memory and time of one hypergradient against inner steps, each in its own process."""
    print("steps  what         peak MiB   times plain   seconds   times plain   each direction")
    for steps in (10, 100, 1000):
        runs = {"plain run": (run_plain, steps, device)}
        for count in (1, 4, 16):
            runs[f"FG2U({count})"] = (run_estimator, steps, device, zb.FG2U(count, chunk=count))
        runs["RGU"] = (run_estimator, steps, device, zb.ReverseUnroll())
        runs["RGU sqrt"] = (run_estimator, steps, device, zb.ReverseUnroll("sqrt"))
        runs["Implicit"] = (run_estimator, steps, device, zb.Implicit(20, 1e-3))
        for name, (function, *arguments) in runs.items():
            seconds, peak = zb.peak_memory(function, *arguments)
            held = (peak.gpu_bytes or peak.cpu_bytes) / MIB
            if name == "plain run":
                plain = held, seconds
            directions = arguments[-1].num_directions if name.startswith("FG2U") else 0
            print(
                f"{steps:5}  {name:10} {held:10.1f} {held / plain[0]:12.2f} "
                f"{seconds:10.3f} {seconds / plain[1]:12.2f}"
                + (f" {seconds / plain[1] / directions:14.2f}" if directions else ""),
                flush=True,
            )


def flat(gradient):
    return np.concatenate([np.ravel(value) for value in gradient.values()])


def cosine(device, size, seconds, seeds):
    """Cosine to the exact hypergradient when every estimator has the same time."""
    task = tasks.load("condensation", size=size, device=device)
    estimators = {
        "FG2U(64)": zb.FG2U(64, chunk=64),
        "FG2UZO(64)": zb.FG2UZO(64, radius=1e-2),
        "TRGU(T/3)": zb.TruncatedUnroll(max(1, task.problem.inner.built.loop.num_steps // 3)),
        "Hessian-free": zb.HessianFree(),
        "Neumann(10)": zb.Neumann(10),
        "RGU": zb.ReverseUnroll(),
    }
    starts = [task.start(seed) for seed in range(seeds)]
    exact = [flat(one_draw(task.problem, start, zb.ReverseUnroll(), 0)) for start in starts]
    print(f"estimator     hypergradients in {seconds:g} s   median   range of {seeds} starts")
    for name, estimator in estimators.items():
        counts, found = [], []
        for start, truth in zip(starts, exact, strict=True):
            count, mean = draws_in(task.problem, start, estimator, seconds, clock_of(device))
            counts.append(count)
            found.append(mean @ truth / (np.linalg.norm(mean) * np.linalg.norm(truth)))
        print(
            f"{name:14} {statistics.median(counts):20g} {statistics.median(found):10.3f}"
            f"   {min(found):.3f} to {max(found):.3f}",
            flush=True,
        )


def draws_in(problem, start, estimator, seconds, clock):
    """Mean of as many hypergradients as the time holds; other directions, one inner loop."""
    total, count, started = 0.0, 0, clock()
    while count == 0 or clock() - started < seconds:
        total = total + flat(one_draw(problem, start, estimator, count))
        count += 1
    return count, total / count


def one_draw(problem, start, estimator, draw):
    x = problem.space.encode(start)
    plan = estimator.plan(problem.space, x, np.random.default_rng([1, draw]), (0,))
    evaluator = Evaluator(problem, zb.Serial(), 0)
    evaluations = evaluator.evaluate(plan.points)
    sketch = estimator.sketch(plan, evaluations, evaluator.bound)
    gradient, _ = sketch.hypergradient(evaluator.bound)
    return problem.space.named_gradient(x, gradient)


SECTIONS = {
    "memory": memory,
    "cosine": cosine,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), help=" ".join(SECTIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="small")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each cosine")
    parser.add_argument("--seeds", type=int, default=5)
    options = vars(parser.parse_args())
    if unknown := set(options["sections"]) - set(SECTIONS):
        parser.error(f"sections must be among {' '.join(SECTIONS)}, got {' '.join(unknown)}")
    for name in options.pop("sections"):
        print(f"\n{name}: {SECTIONS[name].__doc__}")
        SECTIONS[name](**options)


if __name__ == "__main__":
    main()
