"""What an adapter costs over the bare call, and solves to a 1 % answer on the real examples.

Adapter and bare call take turns, so that a busy machine slows both; medians of their times. Run as
`python benchmarks/adapters.py`; a few minutes. `--overhead` or `--solves` does one half.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import importlib
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel import adapters
from zo_bilevel.comparison.summaries import Reached
from zo_bilevel.run.runs import Target

EXAMPLES = Path(__file__).parent.parent / "examples"
PHI = {"a": 0.7, "b": 1.3}
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def in_process() -> Iterator[tuple[str, Pair]]:
    """A function of two numbers, plain and batched."""
    times = np.linspace(0, 1, 50)

    def simulate(a, b):
        return np.exp(-a * times) * b

    def many(phi):
        return np.exp(-phi["a"][:, None] * times) * phi["b"][:, None]

    function, batched = adapters.Function(simulate), adapters.BatchedFunction(many)
    yield "Function", (lambda: function(PHI), lambda: simulate(**PHI))
    yield "BatchedFunction, one row", (lambda: batched(PHI), lambda: simulate(**PHI))


def command_line() -> Iterator[tuple[str, Pair]]:
    """The cheapest program there is, with a template and without."""
    program, plain = shutil.which("echo"), adapters.CommandLine(["echo", "{a}", "{b}"])
    reader = adapters.ReadColumns("in.txt")
    template = adapters.CommandLine(["true"], files={"in.txt": "{{ a }} {{ b }}"}, output=reader)

    def bare():
        done = subprocess.run([program, "0.7", "1.3"], capture_output=True, check=True, text=True)
        return [float(word) for word in done.stdout.split()]

    yield "CommandLine, arguments", (lambda: plain(PHI), bare)
    yield "CommandLine, template", (lambda: template(PHI), bare)


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else 40 ms pass between its headers and its content

    def do_POST(self):
        content = json.dumps(
            list(json.loads(self.rfile.read(int(self.headers["Content-Length"]))).values())
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def service() -> Iterator[tuple[str, Pair]]:
    """A service on this machine that gives back what it got."""
    import httpx

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    adapter, client = adapters.HTTPService(url), httpx.Client()

    def bare():
        return client.post(url, json=PHI).json()

    yield "HTTPService", (lambda: adapter(PHI), bare)
    server.shutdown()


def learner() -> Iterator[tuple[str, Pair]]:
    """Ridge regression on five folds."""
    from sklearn.base import clone
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    features, targets = load_diabetes(return_X_y=True)
    folds = list(KFold(5).split(features))
    adapter = adapters.SklearnEstimator(Ridge(), features, targets, cv=KFold(5))

    def bare():
        fits = [(clone(Ridge(alpha=0.7)).fit(features[a], targets[a]), b) for a, b in folds]
        return np.concatenate([fit.predict(features[b]) for fit, b in fits])

    yield "SklearnEstimator", (lambda: adapter({"alpha": 0.7}), bare)


def follower() -> Iterator[tuple[str, Pair]]:
    """A linear program of 25 rows and 85 columns."""
    import highspy
    import scipy.sparse

    random = np.random.default_rng(0)
    matrix = np.hstack([random.uniform(0, 1, (25, 60)), np.eye(25)])
    cost, price = np.concatenate([random.uniform(0, 0.2, 60), np.full(25, 3.0)]), np.full(60, 0.5)
    options = {"row_lower": 1.0, "upper": 2.0, "cost_parameters": {"price": np.arange(60)}}
    adapter = adapters.LinearProgram(cost, matrix, **options)
    columns = scipy.sparse.csc_array(matrix)

    def bare():
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = 85, 25
        program.col_cost_ = cost + np.concatenate([price, np.zeros(25)])
        program.col_lower_, program.col_upper_ = np.zeros(85), np.full(85, 2.0)
        program.row_lower_, program.row_upper_ = np.ones(25), np.full(25, np.inf)
        program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        program.a_matrix_.start_, program.a_matrix_.index_ = columns.indptr, columns.indices
        program.a_matrix_.value_ = columns.data
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        solver.passModel(program)
        solver.run()
        return np.array(solver.getSolution().col_value)

    yield "LinearProgram", (lambda: adapter({"price": price}), bare)


def unrolled() -> Iterator[tuple[str, Pair]]:
    """A hundred steps of gradient descent on 50 weights."""
    target = torch.linspace(0, 1, 50)

    def step(weights, rate):
        return weights - rate * (weights - target)

    adapter = adapters.TorchUnroll(
        lambda phi: torch.zeros(50), lambda weights, phi, t, batch: step(weights, phi["a"]), 100
    )

    def bare():
        weights = torch.zeros(50)
        with torch.no_grad():
            for _ in range(100):
                weights = step(weights, 0.7)
        return weights

    yield "TorchUnroll, 100 steps", (lambda: adapter({"a": 0.7}), bare)


def unit() -> Iterator[tuple[str, Pair]]:
    """A co-simulation of 100 steps."""
    import fmpy
    from pythonfmu.builder import FmuBuilder

    with tempfile.TemporaryDirectory() as folder:
        source = EXAMPLES.parent / "tests" / "programs" / "spring.py"
        with contextlib.redirect_stdout(io.StringIO()):
            FmuBuilder.build_FMU(source, dest=folder)
        path, times = str(Path(folder) / "Spring.fmu"), np.linspace(0, 5, 101)
        adapter = adapters.FMU(path, outputs="x", times_s=times, step_s=0.05)
        ready = {"model_description": fmpy.read_model_description(path, validate=False)}
        unpacked = fmpy.extract(path)
        settings = {"stop_time": 5.0, "step_size": 0.05, "output": ["x"], "validate": False}
        settings |= {"output_interval": 0.05, "start_values": {"k": 4.0}}
        bare = lambda: fmpy.simulate_fmu(unpacked, **ready, **settings)  # noqa: E731
        yield "FMU", (lambda: adapter({"k": 4.0}), bare)
        shutil.rmtree(unpacked)


def overhead(repeats: int) -> None:
    """Print one row an adapter."""
    print(f"{'adapter':26} {'bare, ms':>10} {'adapter, ms':>12} {'over, ms':>10} {'ratio':>7}")
    for make in (in_process, command_line, service, learner, follower, unrolled, unit):
        try:
            for label, pair in make():
                took: tuple[list[float], list[float]] = ([], [])
                for repeat in range(repeats + 3):
                    for call, found in zip(pair, took, strict=True):
                        started = time.perf_counter()
                        call()
                        if repeat >= 3:
                            found.append(1e3 * (time.perf_counter() - started))
                ours, bare = (statistics.median(times) for times in took)
                difference = f"{ours - bare:10.3f} {ours / bare:7.2f}"
                print(f"{label:26} {bare:10.3f} {ours:12.3f} {difference}", flush=True)
        except (ImportError, zb.MissingPackageError) as error:
            print(f"{make.__name__:26} left out: {error}")


def fair_set() -> dict[str, zb.Method]:
    """Ours, and those of others that were strongest on such problems."""
    names = ("CMA", "OnePlusOne", "Cobyla", "TwoPointsDE")
    theirs = {f"nevergrad:{name}": zb.Nevergrad(name) for name in names}
    return {
        "default": zb.DefaultMethod(),
        "trust-region": zb.TrustRegion(),
        **theirs,
        "cma": zb.CMA(),
        "scipy:L-BFGS-B": zb.Scipy("L-BFGS-B"),
        "dfols": zb.DFOLS(),
    }


def one_percent(module: Any, comparison: zb.Comparison) -> Target:
    """1 % of the data's size where the answer is known, else within 1 % of the best loss found."""
    if isinstance(module.problem.outer, zb.SquaredError):
        return Target("loss", 1e-4 * float(np.mean(module.problem.outer.target**2)))
    best = min(run.loss for run in comparison.runs)
    return Target("loss", best + 0.01 * abs(best))


def solves(num_seeds: int) -> None:
    """Print one row a method on each example that can run here."""
    sys.path.insert(0, str(EXAMPLES))
    budgets = {"amplifier_ngspice": 100, "water_network_wntr": 60}
    budgets |= {"pricing_highspy": 300, "hyperparameters_sklearn": 150}
    for name, budget in budgets.items():
        try:
            module = importlib.import_module(name)
        except SystemExit:
            continue  # it has said what is missing
        initial = getattr(module, "start", None)
        settings = {"max_solves": budget, "seeds": range(num_seeds), "initial": initial}
        comparison = zb.compare(module.problem, fair_set(), **settings)
        target = one_percent(module, comparison)
        print(f"\n{name}: solves to {target}, at most {budget}, {num_seeds} seeds")
        for label in comparison.methods:
            runs = [r for r in comparison.runs_of(label) if r.status != "refused"]
            counts = tuple(run.solves_to(target) for run in runs)
            print(f"  {label:22} {Reached(counts, budget) if runs else 'refused'}", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--solves", action="store_true")
    chosen = parser.parse_args()
    if chosen.overhead or not chosen.solves:
        overhead(chosen.repeats)
    if chosen.solves or not chosen.overhead:
        solves(chosen.seeds)


if __name__ == "__main__":
    main()
