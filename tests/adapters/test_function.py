"""Function and BatchedFunction: styles, seeds, names checked before the first solve."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import BatchedFunction, Function
from zo_bilevel.solve.dispatch.base import Solve, takes_seed
from zo_bilevel.solve.dispatch.batched import Batched
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.errors import InputError

SPACE = zb.Space(a=zb.Real(0, 4), b=zb.Real(0, 1, shape=(2,)))
PHI = {"a": 2.0, "b": np.array([0.5, 1.0])}


def by_keyword(a: float, b: np.ndarray) -> np.ndarray:
    return a * b


def by_dict(phi: dict) -> np.ndarray:
    return phi["a"] * phi["b"]


def by_vector(x: np.ndarray) -> np.ndarray:
    return x[0] * x[1:]


def seeded(a: float, b: np.ndarray, seed: int | None = None) -> float:
    return float(0 if seed is None else seed)


@pytest.mark.parametrize(
    "solver", [Function(by_keyword), Function(by_dict, "dict"), Function(by_vector, "flat")]
)
def test_every_style_gives_the_same_answer_here_and_after_pickling(solver):
    np.testing.assert_array_equal(solver(PHI), [1.0, 2.0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(solver))(PHI), [1.0, 2.0])


def test_only_a_function_of_a_seed_gets_one():
    assert takes_seed(Function(seeded))
    assert not takes_seed(Function(by_keyword))
    assert Function(seeded)(PHI, seed=7) == 7.0


def test_a_parameter_named_seed_is_a_parameter():
    solver = Function(lambda seed: seed)
    zb.Problem(zb.Space(seed=zb.Real(0, 1)), solver)
    assert solver({"seed": 0.25}, seed=9) == 0.25


def test_two_functions_never_share_a_name_in_the_store():
    first, second = Function(lambda a: a), Function(lambda a: 2 * a)
    assert first.name != second.name
    assert zb.Problem(zb.Space(a=zb.Real(0, 1)), first).name == first.name


@pytest.mark.parametrize(
    ("function", "style", "message"),
    [
        (lambda a, bb: a, "keyword", "unknown argument 'b'; did you mean 'bb'"),
        (lambda a, b, c: a, "keyword", "argument 'c' has no default and no parameter"),
        (lambda a, /, b=0: a, "keyword", "unknown argument 'a'"),
    ],
)
def test_names_that_do_not_match_are_refused_when_the_problem_is_made(function, style, message):
    with pytest.raises(InputError, match=message):
        zb.Problem(SPACE, Function(function, style))


def test_defaults_and_open_keywords_are_fine():
    zb.Problem(SPACE, Function(lambda a, b, c=1, *, seed=None: a))
    zb.Problem(SPACE, Function(lambda **values: values["a"]))


def test_a_choice_has_no_place_in_a_flat_vector():
    space = zb.Space(kind=zb.Choice(["x", "y"]))
    for solver in (Function(by_vector, "flat"), BatchedFunction(by_vector, "flat")):
        with pytest.raises(InputError, match="'kind' is a Choice"):
            zb.Problem(space, solver)


@pytest.mark.parametrize("adapter", [Function, BatchedFunction])
def test_bad_arguments_are_named(adapter):
    with pytest.raises(InputError, match="function must be callable, got int"):
        adapter(3)
    with pytest.raises(InputError, match="unknown style 'dicts'; did you mean 'dict'"):
        adapter(by_dict, "dicts")


def batch_dict(phis: dict) -> dict:
    return {"u": phis["a"][:, None] * phis["b"], "total": phis["a"]}


def test_a_batched_function_solves_a_round_in_one_call_and_one_point_alone():
    calls = []

    def function(phis):
        calls.append(len(phis["a"]))
        return batch_dict(phis)

    solver = BatchedFunction(function)
    jobs = [Job(k, {"a": float(k), "b": np.ones(2)}, 0) for k in range(5)]
    outcomes = dict(Batched().run(Solve(solver), jobs))
    assert calls == [5]
    alone = Solve(solver)(jobs[3])
    np.testing.assert_array_equal(outcomes[3].theta, alone.theta)
    assert outcomes[3].layout == alone.layout
    assert calls == [5, 1]


@pytest.mark.parametrize("style", ["dict", "flat", "keyword"])
def test_torch_functions_get_float64_tensors(style):
    def function(phis=None, *, a=None, b=None):
        if style == "flat":
            assert phis.dtype == torch.float64
            return phis[:, :1] * phis[:, 1:]
        if style == "dict":
            a, b = phis["a"], phis["b"]
        assert a.dtype == b.dtype == torch.float64
        return a[:, None] * b

    solver = BatchedFunction(function, style, library="torch")
    if style != "keyword":
        zb.Problem(SPACE, solver)
    np.testing.assert_array_equal(solver(PHI).numpy(), [1.0, 2.0])
    rows = solver.solve_batch({"a": np.array([1.0, 2.0]), "b": np.ones((2, 2))})
    np.testing.assert_array_equal(rows.numpy(), [[1.0, 1.0], [2.0, 2.0]])


def test_options_of_a_choice_come_as_a_list():
    solver = BatchedFunction(lambda p: np.array([float(kind == "x") for kind in p["kind"]]))
    assert solver({"kind": "x"}) == 1.0
    jobs = [Job(k, {"kind": kind}, 0) for k, kind in enumerate("xyx")]
    outcomes = dict(Batched().run(Solve(solver), jobs))
    assert [outcomes[k].theta.item() for k in range(3)] == [1.0, 0.0, 1.0]


def test_seeds_reach_a_batched_function_one_a_row():
    solver = BatchedFunction(lambda phis, seeds: phis["a"] + seeds)
    assert takes_seed(solver)
    jobs = [Job(k, {"a": 0.0}, 10 + k) for k in range(3)]
    outcomes = dict(Batched().run(Solve(solver), jobs))
    assert [outcomes[k].theta.item() for k in range(3)] == [10.0, 11.0, 12.0]
    with pytest.raises(InputError, match="must take seeds="):
        BatchedFunction(lambda phis, seed: phis["a"])


def test_a_batched_function_without_a_batch_axis_is_a_wrong_shape():
    outcome = Solve(BatchedFunction(lambda phis: 3.0))(Job(0, {"a": 1.0}, 0))
    assert outcome.status == "wrong_shape"
    assert "WrongShapeError" in outcome.error
    assert "shape (1, ...) for 1 row, got ()" in outcome.error


def test_device_needs_torch():
    with pytest.raises(InputError, match="device is for library='torch'"):
        BatchedFunction(batch_dict, device="cpu")
