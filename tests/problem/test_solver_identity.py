"""Names of inner solvers: those that differ never share one, the same one keeps it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import FunctionalSGD, FunctionalTraining, TorchUnroll, minibatches
from zo_bilevel.problem.solver_identity import content_hash, solver_name


def scaled(factor):
    return lambda phi: factor * phi["a"]


def chosen(phi):
    return phi["a"] if phi["kind"] in {"north", "east", "south", "west"} else 0.0


def test_functions_that_close_over_other_values_have_other_names():
    names = {solver_name(scaled(f)) for f in (1.0, 2.0, np.ones(3), np.zeros(3), scaled(1.0))}
    assert len(names) == 5
    assert solver_name(scaled(2.0)) == solver_name(scaled(2.0))


def test_what_a_function_counts_does_not_rename_it():
    calls = 0

    def solve(phi):
        nonlocal calls
        calls += 1
        return phi["a"]

    before = solver_name(solve)
    solve({"a": 1.0})
    assert solver_name(solve) == before


def test_functions_that_hold_each_other_have_a_name():
    def even(phi):
        return phi if phi == 0 else odd(phi - 1)

    def odd(phi):
        return even(phi - 1)

    assert solver_name(even) != solver_name(odd)


def training(scale=1.0, momentum=0.0, seed=0, size=2):
    torch.manual_seed(seed)
    network, inputs = torch.nn.Linear(3, 1), torch.ones(5, 3)

    def loss(model, batch, phi):
        return (scale * model(inputs)).square().mean()

    whole = FunctionalTraining(network, loss, FunctionalSGD("rate", momentum))
    return whole.unroll(3, batches=minibatches(inputs, size=size))


def test_loops_are_told_apart_by_all_that_they_are_made_of():
    loops = [training(), training(2.0), training(momentum=0.9), training(seed=1), training(size=3)]
    assert len({loop.name for loop in loops}) == 5
    assert training().name == loops[0].name


def test_a_name_is_the_same_in_another_process():
    program = """
        from test_solver_identity import chosen, scaled, training
        from zo_bilevel.problem.solver_identity import content_hash, solver_name
        print(training().name, solver_name(scaled(2.0)), content_hash(chosen))
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parent,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    names = training().name, solver_name(scaled(2.0)), content_hash(chosen)
    assert ran.stdout.split() == " ".join(names).split()


def quadratic(pull, calls):
    inputs = torch.linspace(-1, 1, 300, dtype=torch.float64).reshape(50, 6)

    def step(theta, phi, t, batch):
        calls.append(t)

        def loss(w):
            return (phi["q"].sigmoid() * (inputs @ w - pull) ** 2).mean()

        return theta - 0.1 * torch.func.grad(loss)(theta)

    loop = TorchUnroll(
        lambda phi: torch.zeros(6, dtype=torch.float64), step, 5, dtype=torch.float64
    )
    outer = loop.outer(lambda theta, phi: ((inputs @ theta - pull) ** 2).mean())
    return zb.Problem(zb.Space(q=zb.Real(-3, 3, shape=(50,))), loop, outer)


def test_a_store_replays_exact_derivatives_to_the_last_bit(tmp_path):
    calls = []
    problem, store = quadratic(1.0, calls), tmp_path / "runs.sqlite"
    results = []
    for _ in range(2):
        calls.clear()
        method = zb.GradientMethod(zb.FG2U(8), lr=0.1)
        results.append(zb.minimize(problem, method, max_solves=90, seed=1, store=store))
    assert calls == []
    np.testing.assert_array_equal(results[0].x, results[1].x)


def test_a_store_gives_no_loop_the_answers_of_another(tmp_path):
    store, method = tmp_path / "runs.sqlite", zb.GradientMethod(zb.FG2U(4), lr=0.1)
    zb.minimize(quadratic(1.0, []), method, max_solves=10, store=store)
    calls = []
    zb.minimize(quadratic(-2.0, calls), method, max_solves=10, store=store)
    assert calls
