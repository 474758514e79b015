"""Everything that is different on a GPU, in at most eight minutes, into one file of figures.

`make gpu`, or `python benchmarks/gpu.py [--out gpu.json] [--minutes 8]`. Without a GPU it says so
and runs the same checks on the CPU at smaller sizes, in CPU seconds. A check that fails is part of
the figures; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.adapters import FunctionalSGD, FunctionalTraining
from zo_bilevel.estimators.direction_block import DirectionBlock
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.tasks.language_models import make_gpt2

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
MAX_SECTION_S = 120.0


def timed(function: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest call after a first one; the device has finished when it is taken."""
    clock = time.perf_counter if HAS_GPU else time.process_time
    best = np.inf
    for attempt in range(repeats + 1):
        synchronize()
        started = clock()
        function()
        synchronize()
        if attempt:
            best = min(best, clock() - started)
    return best


def synchronize() -> None:
    if HAS_GPU:
        torch.cuda.synchronize()


def peak_bytes(function: Callable[[], Any]) -> int | None:
    """Peak of the device's memory during a call; `None` on the CPU."""
    if not HAS_GPU:
        function()
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    synchronize()
    return torch.cuda.max_memory_allocated() - before


def close(one: Any, other: Any, tolerance: float, what: str) -> float:
    """Largest difference relative to the largest value; refused where it is too large."""
    one, other = np.asarray(one), np.asarray(other)
    found = float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-300))
    if not found <= tolerance:
        raise AssertionError(f"{what} differ by {found:.2e}, more than {tolerance:g}")
    return found


def bandwidth() -> dict[str, Any]:
    """Bytes a second of a copy: what batched solvers that stream through memory can reach."""
    source = torch.empty(1 << (28 if HAS_GPU else 24), device=DEVICE)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source))
    return {"GB_per_s": 2 * source.numel() * source.element_size() / seconds / 1e9}


def batched_pde() -> dict[str, Any]:
    """Solves a second of PDE tasks, in one call a round and one after the other."""
    found: dict[str, Any] = {}
    begun = time.perf_counter()
    for name in ("burgers", "allen-cahn", "kdv"):
        problem = tasks.load(name).problem
        solve, rng = Solve(problem.inner), np.random.default_rng(0)
        for count in (1, 16, 256, 1024, 4096) if HAS_GPU else (1, 16, 64):
            if time.perf_counter() - begun > MAX_SECTION_S:
                found[f"{name} x {count}"] = "left out: no time"
                continue
            x = rng.uniform(problem.space.lower, problem.space.upper, (count, problem.space.size))
            jobs = [Job(k, problem.space.decode(row), 0) for k, row in enumerate(x)]
            seconds, answers = timed_round(zb.Batched(device=DEVICE), solve, jobs)
            few = jobs[:4]
            serial, alone = timed_round(zb.Serial(), solve, few)
            worst = max(
                close(answers[k].theta, alone[k].theta, 1e-6, f"{name}: batched and serial")
                for k in alone
                if alone[k].status == answers[k].status == "ok"
            )
            found[f"{name} x {count}"] = {
                "batched_per_s": count / seconds,
                "serial_per_s": len(few) / serial,
                "difference": worst,
            }
    return found


def timed_round(dispatcher: Any, solve: Solve, jobs: list[Job]) -> tuple[float, dict[int, Any]]:
    answers: dict[int, Any] = {}
    return timed(lambda: answers.update(dispatcher.run(solve, jobs)), 1), answers


def training(width: int) -> tuple[zb.Problem, dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 64, generator=generator).to(DEVICE)
    labels = torch.randint(10, (256,), generator=generator).to(DEVICE)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(64, width), torch.nn.Tanh(), torch.nn.Linear(width, 10)
    ).to(DEVICE)

    def loss(model: Any, batch: Any, phi: Any) -> torch.Tensor:
        each = torch.nn.functional.cross_entropy(model(inputs), labels, reduction="none")
        return (phi["trust"].sigmoid() * each).mean()

    whole = FunctionalTraining(network, loss, FunctionalSGD(0.1))
    loop = whole.unroll(20)

    def outer(weights: Any, phi: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(whole.model(weights)(inputs), labels)

    space = zb.Space(trust=zb.Real(-4, 4, shape=(256,)))
    return zb.Problem(space, loop, loop.outer(outer)), {"trust": np.linspace(-2, 2, 256)}


def forward_gradients() -> dict[str, Any]:
    """Time and memory of `FG2U` by chunk, of rivals, and agreement of whole frames."""
    problem, phi = training(2048 if HAS_GPU else 64)
    count, chunks = (64, (1, 8, 64)) if HAS_GPU else (16, (4, 16))
    estimators: dict[str, Any] = {
        f"FG2U({count}, chunk={chunk})": zb.FG2U(count, chunk=chunk) for chunk in chunks
    }
    estimators |= {"RGU": zb.ReverseUnroll(), "RGU sqrt": zb.ReverseUnroll("sqrt")}
    found: dict[str, Any] = {}
    for name, estimator in estimators.items():

        def gradient(estimator: Any = estimator) -> Any:
            return zb.hypergradient(problem, phi, estimator=estimator)

        found[name] = {"seconds": timed(gradient, 1), "peak_bytes": peak_bytes(gradient)}
    exact = zb.hypergradient(problem, phi, estimator=zb.ReverseUnroll())["trust"]
    every = zb.hypergradient(problem, phi, estimator=zb.FG2U(256, chunk=64))["trust"]
    found["whole frame against RGU"] = close(every, exact, 1e-3, "forward and reverse mode")
    return found


def zeroth_order_directions() -> dict[str, Any]:
    """ZO directions through a training loop: one call a round against one call a solve."""
    problem, phi = training(256 if HAS_GPU else 32)
    x = problem.space.encode(phi)
    estimator = zb.FG2UZO(128 if HAS_GPU else 16, radius=1e-2)
    plan = estimator.plan(problem.space, x, np.random.default_rng(0), (0,))
    found = {}
    gradients = []
    for name, dispatcher in (("batched", zb.Batched(device=DEVICE)), ("serial", zb.Serial())):
        evaluator = Evaluator(problem, dispatcher, 0)
        found[f"{name}_seconds"] = timed(lambda e=evaluator: e.evaluate(plan.points), 1)
        sketch = estimator.sketch(plan, evaluator.evaluate(plan.points), evaluator.bound)
        gradients.append(sketch.hypergradient(evaluator.bound)[0])
    found["difference"] = close(*gradients, 5e-2, "batched and serial gradients")
    return found


def directions() -> dict[str, Any]:
    """Drawing a million-parameter direction where it is used; equal numbers everywhere."""
    size = 10_000_000 if HAS_GPU else 1_000_000
    space = zb.Space(a=zb.Real(-1, 1, shape=(size,)))
    found: dict[str, Any] = {}
    for family in ("rademacher", "orthogonal", "gaussian"):
        block = DirectionBlock(family, 1, 7, 0, 1)
        found[family] = {
            "seconds_at_home": timed(lambda block=block: block.draw(space), 1),
            "seconds_on_device": timed(lambda block=block: block.draw(space, DEVICE), 1),
        }
        there = block.draw(space, DEVICE)[0]
        there = there.cpu().numpy() if torch.is_tensor(there) else there
        difference = close(there, block.draw(space)[0], 1e-9, f"{family} directions")
        found[family]["difference"] = difference
    return found


def fine_tuning() -> dict[str, Any]:
    """Share of bare forward passes in a step of `ZerothOrderSGD`."""
    sizes = {"width": 1024, "layers": 12} if HAS_GPU else {"width": 256, "layers": 4}
    model = make_gpt2(length=128, **sizes).to(DEVICE)
    batch = torch.randint(1, 127, (8, 128), device=DEVICE)

    @torch.no_grad()
    def loss() -> Any:
        return model(batch, labels=batch).loss

    found: dict[str, Any] = {"weights": sum(w.numel() for w in model.parameters())}
    kinds: dict[str, Any] = {
        "gaussian": {"perturbation": "gaussian"},
        "rademacher": {"perturbation": "rademacher"},
        "low_rank": {},
        "low_rank_in_one_pass": {"module": model, "chunk": 4},
    }
    for name, kind in kinds.items():
        optimizer = zb.ZerothOrderSGD(model.parameters(), lr=1e-7, num_directions=4, **kind)
        bare = timed(lambda: [loss() for _ in range(8)])
        found[f"{name}_share"] = bare / timed(lambda o=optimizer: o.step(loss))
    return found


def out_of_memory() -> dict[str, Any]:
    """A round that does not fit is halved until it does, on a GPU for want of real memory."""
    limit = torch.cuda.mem_get_info()[0] if HAS_GPU else 1 << 22
    row = limit // 8 // 8

    class Hungry:
        def __call__(self, phi: Any) -> Any:
            return self.solve_batch({"a": np.asarray(phi["a"])[None]})[0]

        def solve_batch(self, phis: Any) -> Any:
            a = phis["a"]
            if not HAS_GPU and len(a) > 4:
                raise MemoryError("pretended")
            if HAS_GPU and len(a) > 1:
                torch.empty((len(a), row), dtype=torch.float64, device=DEVICE)
            return a * 2.0

    dispatcher = zb.Batched(device=DEVICE)
    jobs = [Job(k, {"a": np.float64(k)}, 0) for k in range(32)]
    answers = dict(dispatcher.run(Solve(Hungry()), jobs))
    assert all(answers[k].theta.item() == 2.0 * k for k in range(32))
    return {"rows": 32, "fitting_batch": dispatcher.fitting_batch}


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "bandwidth": bandwidth,
    "batched_pde": batched_pde,
    "forward_gradients": forward_gradients,
    "zeroth_order_directions": zeroth_order_directions,
    "directions": directions,
    "fine_tuning": fine_tuning,
    "out_of_memory": out_of_memory,
}


def main() -> None:
    """Run the sections that time is left for, and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="gpu.json")
    parser.add_argument("--minutes", type=float, default=8.0)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if HAS_GPU else "no GPU here: on the CPU, smaller sizes"
    print(name, flush=True)
    figures: dict[str, Any] = {"device": name, "torch": torch.__version__}
    started, failed = time.perf_counter(), []
    for section, run in SECTIONS.items():
        begun = time.perf_counter()
        if begun - started > 60 * options.minutes * 0.75:
            figures[section] = "left out: no time"
            continue
        try:
            figures[section] = run()
        except Exception as error:  # noqa: BLE001 - one failure must not hide the other figures
            figures[section] = {"failed": f"{type(error).__name__}: {error}"}
            failed.append(section)
        print(f"{section}, {time.perf_counter() - begun:.0f} s: {figures[section]}", flush=True)
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump(figures, file, indent=1)
    print(f"written to {options.out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
