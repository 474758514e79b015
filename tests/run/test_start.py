"""The start is a solve like any other: only what can never work ends a run."""

import sys

import numpy as np
import pytest

import zo_bilevel as zb

TIMES = np.linspace(0, 1, 20)
SPACE = zb.Space(k=zb.Real(0, 3))


class Unprintable(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError("no text")


def raising(error):
    raise error


FAULTS = {
    "raises": lambda: raising(ArithmeticError("no convergence")),
    "exits": lambda: sys.exit(3),
    "unprintable": lambda: raising(Unprintable()),
    "nan": lambda: np.full(20, np.nan),
    "infinite": lambda: np.full(20, -np.inf),
    "short": lambda: np.ones(11),
    "empty": lambda: [],
    "none": lambda: None,
    "masked": lambda: np.ma.masked_greater(np.arange(20.0), 18.0),
}


def problem(fault, **options):
    def simulate(phi):
        return fault() if phi["k"] > 1.2 else 1 - phi["k"] * TIMES

    return zb.Problem(SPACE, simulate, zb.SquaredError(1 - 0.5 * TIMES), **options)


@pytest.mark.parametrize("options", [{}, {"expected_length": 20}])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_start_that_fails_costs_a_solve_and_not_the_run(kind, options):
    result = zb.minimize(problem(FAULTS[kind], **options), initial={"k": 1.5}, max_solves=30)
    assert result.phi["k"] == pytest.approx(0.5, abs=1e-6)
    assert result.history[0].status != "ok"
    assert sum(result.failures.values()) >= 1


def test_a_rejected_start_and_one_without_a_loss_cost_a_solve_too():
    rejected = problem(
        lambda: np.full(20, 1e30), valid=lambda theta, phi: bool(abs(theta).max() < 1e6)
    )
    assert zb.minimize(rejected, initial={"k": 1.5}, max_solves=30).failures["rejected"] >= 1

    def logarithm(theta, phi):
        return float(np.log(1.2 - phi["k"] if phi["k"] < 1.2 else np.nan))

    def division(theta, phi):
        return (phi["k"] - 0.5) ** 2 / (0 if phi["k"] > 1.2 else 1)

    for outer, status in ((logarithm, "invalid"), (division, "failed")):
        found = zb.minimize(
            zb.Problem(SPACE, lambda phi: 1.0, outer), initial={"k": 1.5}, max_solves=30
        )
        assert found.failures[status] >= 1


def test_a_comparison_keeps_the_row_of_a_failing_start():
    starts = [{"k": 0.3}, {"k": 1.5}, {"k": 0.2}]
    made = zb.compare(
        problem(FAULTS["short"]),
        {"default": zb.DefaultMethod()},
        max_solves=20,
        seeds=range(3),
        initial=lambda seed: starts[seed],
    )
    assert [run.loss < 1e-20 for run in made.runs_of("default")] == [True] * 3


@pytest.mark.parametrize(
    ("inner", "outer", "message"),
    [
        (lambda phi: "text", zb.SquaredError([1.0]), "must be a number, array, tensor, or dict"),
        (lambda phi: {"a": {"b": 1.0}}, zb.SquaredError([1.0]), "write nested names as one"),
        (lambda phi: {0: 1.0}, lambda theta, phi: theta[0], "texts as names, got the name 0"),
        (lambda phi: {"u": 1.0}, zb.SquaredError({"v": 1.0}), r"shapes \{u: \(\)\}.*\{v: \(\)\}"),
        (lambda phi: np.ones((2, 8)), zb.SquaredError(np.ones((8, 2))), r"\(2, 8\).*\(8, 2\)"),
        (lambda phi: np.ones(21), zb.SquaredError(np.ones(20)), r"\(21,\).*\(20,\)"),
        (lambda phi: np.ones(2), lambda theta, phi: phi["kk"], "KeyError: 'kk'"),
        (lambda phi: zb.WithCost(1.0, -1.0), None, "cost must be finite and >= 0, got -1"),
        (lambda phi: zb.WithCost(1.0, np.nan), None, "cost must be finite and >= 0, got nan"),
        (lambda phi: zb.WithCost(1.0, np.inf), None, "cost must be finite and >= 0, got inf"),
    ],
)
def test_what_can_never_work_ends_the_run_at_its_first_solve(inner, outer, message):
    calls = []

    def counted(phi):
        calls.append(1)
        return inner(phi)

    with pytest.raises((zb.InnerSolverError, zb.InputError), match=message):
        zb.minimize(zb.Problem(SPACE, counted, outer), zb.RandomSearch(), max_solves=10)
    assert len(calls) == 1


def test_ctrl_c_in_a_solve_is_no_failed_solve():
    def interrupted(phi):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zb.minimize(zb.Problem(SPACE, interrupted), max_solves=3)


def test_no_control_characters_of_an_error_reach_the_terminal():
    def vandal(phi):
        raise RuntimeError("\x1b[2J\udcff cleared")

    with pytest.raises(zb.InnerSolverError) as caught:
        zb.minimize(zb.Problem(SPACE, vandal), max_solves=2)
    assert "\\x1b[2J\\udcff cleared" in str(caught.value)


def test_a_callback_ends_a_run_by_stop_iteration():
    def enough(record):
        if record.solve == 3:
            raise StopIteration("three are enough")

    start = {"k": 0.1}
    sample = problem(FAULTS["nan"])
    found = zb.minimize(sample, zb.RandomSearch(), initial=start, max_solves=9, callback=enough)
    assert (found.solves, found.stop_reason) == (3, "three are enough")
