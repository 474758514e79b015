"""`Batched`: one call a round, chunks that fit, one bad row costs one solve."""

import numpy as np
import pytest
import torch
from unrolled import SmallNetwork

import zo_bilevel as zb
from zo_bilevel.solve.derivative import WithDerivative
from zo_bilevel.solve.dispatch.base import Dispatcher, Solve, WithCost
from zo_bilevel.solve.dispatch.batched import Batched, is_out_of_memory
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.errors import InnerSolverError, InputError, InvalidSolutionError

JOBS = [Job(k, {"a": float(k), "b": np.full(3, k + 0.5)}, 5) for k in range(10)]


class Square:
    """theta = a^2 + sum b; keeps the sizes of its calls."""

    def __init__(self, fails=None, capacity=None, bad=()):
        self.sizes, self.fails, self.capacity, self.bad = [], fails, capacity, bad

    def __call__(self, phi, seed=None):
        return phi["a"] ** 2 + phi["b"]

    def solve_batch(self, phis):
        size = len(phis["a"])
        self.sizes.append(size)
        if self.capacity is not None and size > self.capacity:
            raise self.fails
        if self.capacity is None and self.fails and set(self.bad) & set(np.asarray(phis["a"])):
            raise self.fails
        theta = phis["a"][:, None] ** 2 + phis["b"]
        for bad in self.bad if self.fails is None else ():
            theta[phis["a"] == bad] = np.nan
        return theta


def content(outcomes):
    return {k: (o.status, None if o.theta is None else o.theta.tolist()) for k, o in outcomes}


def test_a_round_is_one_call_with_the_numbers_of_serial():
    inner = Square()
    expected = content(Serial().run(Solve(inner), JOBS))
    assert content(Batched().run(Solve(inner), JOBS)) == expected
    assert inner.sizes == [10]


def test_max_batch_cuts_the_round():
    inner = Square()
    assert len(dict(Batched(max_batch=4).run(Solve(inner), JOBS))) == 10
    assert inner.sizes == [4, 4, 2]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no"),
        RuntimeError("CUDA error: out of memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_out_of_memory_halves_the_chunk_and_remembers(error):
    inner = Square(fails=error, capacity=3)
    dispatcher = Batched()
    expected = content(Serial().run(Solve(inner), JOBS))
    assert content(dispatcher.run(Solve(inner), JOBS)) == expected
    assert inner.sizes == [10, 5, 2, 2, 2, 2, 2]
    inner.sizes.clear()
    assert content(dispatcher.run(Solve(inner), JOBS)) == expected
    assert inner.sizes == [2, 2, 2, 2, 2]
    assert dispatcher.fitting_batch == 2
    assert is_out_of_memory(error)


def test_a_row_too_large_for_memory_is_one_failed_solve_each():
    inner = Square(fails=MemoryError("too large"), capacity=0)
    outcomes = dict(Batched().run(Solve(inner), JOBS[:2]))
    assert [outcomes[k].status for k in (0, 1)] == ["failed", "failed"]
    assert outcomes[0].error.startswith("MemoryError: too large (test_dispatch_batched.py, line")


def test_one_point_that_raises_costs_one_solve():
    inner = Square(fails=ValueError("bad mesh"), bad=(3.0,))
    outcomes = dict(Batched().run(Solve(inner), JOBS))
    assert [k for k, o in outcomes.items() if o.status != "ok"] == [3]
    assert outcomes[3].error.startswith("ValueError: bad mesh (test_dispatch_batched.py, line")
    assert len(inner.sizes) < len(JOBS)


def test_a_row_that_is_not_finite_is_invalid_alone():
    outcomes = dict(Batched().run(Solve(Square(bad=(2.0, 7.0))), JOBS))
    assert [k for k, o in sorted(outcomes.items()) if o.status == "invalid"] == [2, 7]
    assert sum(o.status == "ok" for o in outcomes.values()) == 8


def test_a_device_brings_float64_tensors_and_results_come_to_the_host():
    class Torch:
        def __call__(self, phi):
            raise NotImplementedError

        def solve_batch(self, phis):
            assert phis["a"].dtype == phis["count"].dtype == torch.float64
            assert phis["name"] == ["x", "y"]
            return {"u": phis["a"][:, None] * torch.ones(4), "n": phis["count"]}

    jobs = [Job(k, {"a": 1.5 * k, "count": k + 1, "name": "xy"[k]}, 0) for k in range(2)]
    outcomes = dict(Batched(device="cpu").run(Solve(Torch()), jobs))
    assert outcomes[1].theta.tolist() == [1.5] * 4 + [2.0]
    assert outcomes[1].layout.names == ("u", "n")
    assert outcomes[1].layout.is_torch


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_out_of_memory_on_a_gpu_halves_the_chunk():
    free, _ = torch.cuda.mem_get_info()
    columns = free // 8 // 6

    class Large:
        def __call__(self, phi):
            raise NotImplementedError

        def solve_batch(self, phis):
            return phis["a"][:, None].expand(-1, columns).exp().sum(1)

    dispatcher = Batched(device="cuda")
    outcomes = dict(dispatcher.run(Solve(Large()), [Job(k, {"a": 0.0}, 0) for k in range(16)]))
    assert all(o.status == "ok" and o.theta.item() == columns for o in outcomes.values())
    assert dispatcher.fitting_batch == 4


def test_seeds_reach_a_solver_that_asks_for_them():
    jobs = [Job(k, {"a": float(k)}, seed) for k, seed in enumerate((7, 8, 7))]

    class Vector:
        def __call__(self, phi, seed):
            return phi["a"] + seed

        def solve_batch(self, phis, *, seeds):
            return phis["a"] + seeds

    class Scalar(Vector):
        calls = 0

        def solve_batch(self, phis, *, seed=None):
            self.calls += 1
            return phis["a"] + seed

    for inner in (Vector(), Scalar()):
        expected = content(Serial().run(Solve(inner), jobs))
        assert content(Batched().run(Solve(inner), jobs)) == expected
    assert inner.calls == 2  # one a seed


def test_the_cost_of_a_call_is_shared_by_its_rows():
    class Priced(Square):
        def solve_batch(self, phis):
            return WithCost(phis["a"], cost=5.0)

    outcomes = dict(Batched().run(Solve(Priced()), JOBS))
    assert outcomes[4].cost == 0.5


def test_a_wrong_first_axis_is_named():
    class Wrong(Square):
        def solve_batch(self, phis):
            return phis["a"][:3]

    with pytest.raises(InnerSolverError, match=r"\(10, \.\.\.\) for 10 rows, got \(3,\)"):
        list(Batched().run(Solve(Wrong()), JOBS))


def test_an_invalid_solution_that_the_solver_finds_itself_is_that_row_alone():
    error = InvalidSolutionError("step 3 is not finite")
    outcomes = dict(Batched().run(Solve(Square(fails=error, bad=(6.0,))), JOBS))
    assert outcomes.pop(6).status == "invalid"
    assert {o.status for o in outcomes.values()} == {"ok"}


def test_a_solve_to_be_differentiated_runs_by_itself():
    def derivative(inner, outer, phi, seed):
        return WithDerivative(inner(phi), np.eye(3))

    jobs = [*JOBS[:3], Job(3, JOBS[3].phi, 5, derivative)]
    inner = Square()
    outcomes = dict(Batched().run(Solve(inner), jobs))
    assert inner.sizes == [3]
    assert outcomes[3].derivative.shape == (3, 3)
    assert outcomes[3].theta.tolist() == [12.5] * 3


@pytest.mark.parametrize("estimator", [zb.FG2U(4, chunk=2), zb.ReverseUnroll()])
def test_orders_of_exact_derivatives_give_the_numbers_of_serial(estimator):
    network = SmallNetwork(0, num_steps=3)

    class Stacked:
        """The network's loop with a `solve_batch` beside its derivatives."""

        jvp = staticmethod(network.loop.jvp)
        pull_trajectory = staticmethod(network.loop.pull_trajectory)
        pull_fixed_point = staticmethod(network.loop.pull_fixed_point)

        def __init__(self):
            self.batches = []

        def __call__(self, phi, *, seed=None):
            return network.loop(phi, seed=seed)

        def solve_batch(self, phis, seeds):
            self.batches.append(len(seeds))
            rows = [{name: part[k] for name, part in phis.items()} for k in range(len(seeds))]
            solved = [network.loop(row, seed=int(s)) for row, s in zip(rows, seeds, strict=True)]
            return {name: torch.stack([theta[name] for theta in solved]) for name in solved[0]}

    inner = Stacked()
    problem = zb.Problem(network.space, inner, network.loop.outer(network.outer))
    options = {"estimator": estimator, "seed": 3}
    alone = zb.hypergradient(problem, network.phi, **options)
    found = zb.hypergradient(problem, network.phi, **options, dispatcher=Batched())
    for name, value in alone.items():
        np.testing.assert_array_equal(found[name], value)
    inner.batches.clear()
    method = zb.GradientMethod(estimator, lr=0.05)
    serial = zb.minimize(problem, method, initial=network.phi, max_solves=20)
    result = zb.minimize(problem, method, initial=network.phi, max_solves=20, dispatcher=Batched())
    assert result.loss == serial.loss
    np.testing.assert_array_equal(result.x, serial.x)
    assert sum(inner.batches) == 5  # the plain solves that judge the last point


def test_bad_input_is_refused_by_name():
    with pytest.raises(InputError, match="max_batch must be a whole number >= 1, got 0"):
        Batched(max_batch=0)
    with pytest.raises(InputError, match="device must be one that torch can use here, got 'gpux'"):
        Batched(device="gpux")
    with pytest.raises(InputError, match=r"needs an inner solver with a method solve_batch"):
        Batched().run(Solve(lambda phi: phi["a"]), JOBS)


def test_it_is_a_dispatcher():
    dispatcher = Batched(max_batch=8)
    assert isinstance(dispatcher, Dispatcher)
    assert list(dispatcher.run(Solve(Square()), [])) == []
    assert repr(dispatcher) == "Batched(max_batch=8, device=None)"
