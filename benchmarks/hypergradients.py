"""Memory, time and accuracy of the hypergradients of differentiable inner loops.

python benchmarks/hypergradients.py memory cosine   # minutes on a CPU
"""

import argparse
import copy
import importlib.util
import statistics
import time

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.adapters import FunctionalSGD, FunctionalTraining, OnlineES
from zo_bilevel.run.evaluator import Evaluator

MIB = 1 << 20


def network_loop(num_steps, device="cpu", width=256, rows=256):
    """A three-layer network trained on the whole set, its loss, and phi: rates and a decay."""
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
    return loop, outer, space


def network_problem(num_steps, device):
    loop, outer, space = network_loop(num_steps, device)
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
    return typical_seconds(num_steps, device, lambda: one_draw(problem, START, estimator, 0))


def run_online(num_steps, device, noise):
    """One update of four pairs, from a tenth of the loop."""
    loop, outer, space = network_loop(num_steps, device)
    online = OnlineES(loop, outer, space, noise=noise, num_pairs=4, window=num_steps // 10)
    online.gradient(START)  # brings the pairs to their places
    return typical_seconds(num_steps, device, lambda: online.gradient(START))


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
    print("steps  what           peak MiB   times plain   seconds   times plain   each direction")
    for steps in (10, 100, 1000):
        runs = {"plain run": (run_plain, steps, device)}
        for count in (1, 4, 16):
            runs[f"FG2U({count})"] = (run_estimator, steps, device, zb.FG2U(count, chunk=count))
        runs["RGU"] = (run_estimator, steps, device, zb.ReverseUnroll())
        runs["RGU sqrt"] = (run_estimator, steps, device, zb.ReverseUnroll("sqrt"))
        for noise in ("persistent", "reused", "truncated"):
            runs[f"ES {noise}"] = (run_online, steps, device, noise)
        runs["Implicit"] = (run_estimator, steps, device, zb.Implicit(20, 1e-3))
        for name, (function, *arguments) in runs.items():
            seconds, peak = zb.peak_memory(function, *arguments)
            held = (peak.gpu_bytes or peak.cpu_bytes) / MIB
            if name == "plain run":
                plain = held, seconds
            directions = arguments[-1].num_directions if name.startswith("FG2U") else 0
            print(
                f"{steps:5}  {name:12} {held:10.1f} {held / plain[0]:12.2f} "
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


def plain_loop(module, loss):
    copied = copy.deepcopy(module)
    optimizer = torch.optim.SGD(copied.parameters(), lr=0.1, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        loss(copied, 1.0).backward()
        optimizer.step()


def torchopt_gradient(module, loss):
    import torchopt

    copied, weights = copy.deepcopy(module), torch.ones(64, requires_grad=True)
    optimizer = torchopt.MetaSGD(copied, lr=0.1, momentum=0.9)
    for _ in range(100):
        optimizer.step(loss(copied, weights))
    loss(copied, 1.0).backward()


def small(device, **_):
    """A network of 1,500 weights, 100 steps of SGD: what bookkeeping costs, beside TorchOpt."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(64, 64), torch.randint(10, (64,))
    module = torch.nn.Sequential(
        torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Linear(16, 10)
    )

    def loss(model, weights):
        losses = torch.nn.functional.cross_entropy(model(inputs), targets, reduction="none")
        return (losses * weights).mean()

    training = FunctionalTraining(
        module, lambda model, batch, phi: loss(model, phi["w"]), FunctionalSGD(0.1, 0.9)
    )
    loop = training.unroll(100)
    outer = loop.outer(lambda weights, phi: loss(training.model(weights), 1.0))
    problem = zb.Problem(zb.Space(w=zb.Real(0, 2, shape=(64,))), loop, outer)
    start = {"w": np.ones(64)}

    runs = {"our plain run": lambda: problem.inner(start, seed=0)}
    if importlib.util.find_spec("torchopt"):
        runs["TorchOpt"] = lambda: torchopt_gradient(module, loss)
    for estimator in (zb.ReverseUnroll(), zb.FG2U(1), zb.FG2U(16, chunk=16)):
        runs[repr(estimator)] = lambda e=estimator: one_draw(problem, start, e, 0)
    plain_seconds = typical_seconds(100, device, lambda: plain_loop(module, loss))
    print("what                 times a plain torch loop")
    for name, run in runs.items():
        print(f"{name[:20]:20} {typical_seconds(100, device, run) / plain_seconds:10.2f}")


SECTIONS = {
    "memory": memory,
    "small": small,
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
