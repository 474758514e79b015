"""Sparse sketches: few solves, whole Jacobians, and no pattern believed unchecked."""

import numpy as np
import pytest

import zo_bilevel as zb

SIZE, OUTPUTS, WIDTH = 200, 400, 40


def banded():
    """Each of 200 parameters moves a tenth of 400 outputs, those of a band around it."""
    rows, columns = np.arange(OUTPUTS)[:, None], 2 * np.arange(SIZE)[None, :]
    pattern = np.abs((rows - columns + OUTPUTS // 2) % OUTPUTS - OUTPUTS // 2) < WIDTH // 2
    weights = np.random.default_rng(0).uniform(0.5, 1.5, pattern.shape) * pattern
    return pattern, weights


PATTERN, WEIGHTS = banded()
TARGET = WEIGHTS @ np.sin(np.linspace(0, 3, SIZE))


def solver(phi):
    return WEIGHTS @ np.sin(phi["a"])


def problem_of(inner=solver, lower=-3.0):
    space = zb.Space(a=zb.Real(lower, 3, shape=(SIZE,)))
    return zb.Problem(space, inner, zb.SquaredError(TARGET), name="banded")


def exact_gradient(a):
    return 2 / OUTPUTS * np.cos(a) * (WEIGHTS.T @ (WEIGHTS @ np.sin(a) - TARGET))


def test_the_gradient_is_exact_for_a_ninth_of_the_solves():
    a = np.random.default_rng(1).uniform(-1, 1, SIZE)
    sparse = zb.hypergradient(problem_of(), {"a": a}, estimator=zb.SparseZO(PATTERN))
    assert np.linalg.norm(sparse["a"] - exact_gradient(a)) < 1e-4 * np.linalg.norm(sparse["a"])
    assert np.all(sparse.standard_error["a"] == 0.0)
    dense = zb.FG2UZO(SIZE, directions="coordinate")
    full = zb.hypergradient(problem_of(), {"a": a}, estimator=dense)
    assert np.allclose(sparse["a"], full["a"], rtol=1e-3, atol=1e-9)
    assert (sparse.solves, full.solves) == (23, SIZE + 2)  # one of them measures the noise


def test_descent_gets_farther_with_the_same_solves():
    def reached(estimator):
        method = zb.GradientMethod(estimator, lr=0.1)
        start = {"a": np.zeros(SIZE)}
        return zb.minimize(problem_of(), method, initial=start, max_solves=700).loss

    dense = zb.FG2UZO(SIZE, directions="coordinate")
    assert reached(zb.SparseZO(PATTERN)) < 0.1 * reached(dense)


def test_a_pattern_that_is_not_said_is_seen_in_the_first_differences():
    problem, start = problem_of(), {"a": np.full(SIZE, 0.1)}
    full = zb.hypergradient(problem, start, estimator=zb.SparseZO())
    assert full.solves == SIZE + 2  # one of them measures the noise
    method = zb.GradientMethod(zb.SparseZO(), lr=0.1)
    result = zb.minimize(problem, method, initial=start, max_solves=SIZE + 1 + 3 * 22)
    assert result.rounds == 4


def test_a_pattern_that_is_another_elsewhere_is_seen_again():
    """The first parameter moves the last outputs beyond 0.05, where a descent soon comes."""

    def switched(phi):
        a = phi["a"]
        return np.concatenate([a, np.where(a[0] > 0.05, a[0] - 0.05, 0.0) + a[-2:]])

    space = zb.Space(a=zb.Real(-1, 1, shape=(12,)))
    problem = zb.Problem(space, switched, zb.SquaredError(np.full(14, 0.5)), name="switched")
    exact, seen = (
        zb.minimize(
            problem,
            zb.GradientMethod(estimator, lr=0.2),
            initial={"a": np.zeros(12)},
            max_solves=400,
        )
        for estimator in (zb.FG2UZO(12, directions="coordinate"), zb.SparseZO())
    )
    assert seen.loss < 1.01 * exact.loss
    assert seen.rounds > 2 * exact.rounds


@pytest.mark.parametrize("asynchronous", [False, True])
def test_gauss_newton_starts_with_all_slopes(asynchronous):
    rng = np.random.default_rng(4)
    pattern = np.kron(np.eye(10), np.ones((8, 4))) > 0
    weights = rng.standard_normal(pattern.shape) * pattern
    space = zb.Space(a=zb.Real(-3, 3, shape=(40,)))

    def blocks(phi):
        return weights @ np.sin(phi["a"])

    target = blocks({"a": rng.uniform(-1, 1, 40)})
    problem = zb.Problem(space, blocks, zb.SquaredError(target), name="blocks")

    def solves(estimator):
        result = zb.minimize(
            problem,
            zb.GaussNewton(estimator),
            initial={"a": np.zeros(40)},
            tolerance=1e-8,
            max_solves=200,
            asynchronous=asynchronous,
        )
        assert result.loss <= 1e-8
        return result.solves

    dense = solves(None)
    assert solves(zb.SparseZO(pattern)) < 0.5 * dense
    wrong = pattern.copy()
    wrong[3, 2] = False
    assert solves(zb.SparseZO(wrong)) < dense + 20  # refuted: as without it


@pytest.mark.parametrize("place", [0, 77, 199])
def test_a_pattern_that_misses_an_output_is_refused(place):
    wrong = PATTERN.copy()
    wrong[np.flatnonzero(PATTERN[:, place])[5], place] = False
    with pytest.raises(zb.InputError, match="sparsity must name every output"):
        zb.hypergradient(problem_of(), {"a": np.zeros(SIZE)}, estimator=zb.SparseZO(wrong))


def test_what_moves_everything_is_seen():
    def coupled(phi):
        return solver(phi) + 0.1 * np.sum(phi["a"])

    with pytest.raises(zb.InputError, match="sparsity must name every output"):
        zb.hypergradient(problem_of(coupled), {"a": np.ones(SIZE)}, estimator=zb.SparseZO(PATTERN))


def test_columns_of_a_group_share_no_output_and_all_are_there():
    groups = zb.SparseZO(PATTERN).groups
    assert sorted(np.concatenate(groups).tolist()) == list(range(SIZE))
    for group in groups:
        assert PATTERN[:, group].sum(axis=1).max() == 1
    assert [len(zb.SparseZO(p).groups) for p in (np.eye(30), np.ones((4, 30)))] == [1, 30]


def test_a_start_on_a_bound_moves_inside():
    a = np.zeros(SIZE)
    found = zb.hypergradient(problem_of(lower=0.0), {"a": a}, estimator=zb.SparseZO(PATTERN))
    assert np.linalg.norm(found["a"] - exact_gradient(a)) < 1e-3 * np.linalg.norm(found["a"])


def test_solves_that_fail_both_ways_end_the_sketch_by_name():
    calls = []

    def fragile(phi):
        calls.append(0)
        if len(calls) >= 5:
            raise ValueError("no")
        return solver(phi)

    with pytest.raises(zb.InnerSolverError, match=r"\d+ of \d+ solves of the sketch failed"):
        zb.hypergradient(problem_of(fragile), {"a": np.zeros(SIZE)}, estimator=zb.SparseZO(PATTERN))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (np.ones(3), r"sparsity must be an array of shape \(m, N\), got \(3,\)"),
        (np.ones((OUTPUTS, 7)), "sparsity must have a column a parameter, 200, got 7"),
        (np.ones((7, SIZE)), "sparsity must have a row an output, 400, got 7"),
    ],
)
def test_a_pattern_of_the_wrong_shape(pattern, words):
    with pytest.raises(zb.InputError, match=words):
        zb.hypergradient(problem_of(), {"a": np.zeros(SIZE)}, estimator=zb.SparseZO(pattern))


def test_integers_and_losses_are_refused():
    space = zb.Space(a=zb.Integer(0, 9))
    problem = zb.Problem(space, lambda phi: [phi["a"]], zb.SquaredError([1.0]))
    with pytest.raises(zb.UnsupportedProblemError, match="vary continuously"):
        zb.hypergradient(problem, {"a": 3}, estimator=zb.SparseZO([[1]]))
    scalar = zb.Problem(zb.Space(a=zb.Real(0, 9)), lambda phi: phi["a"])
    with pytest.raises(zb.UnsupportedProblemError, match="seen whole"):
        zb.hypergradient(scalar, {"a": 3.0}, estimator=zb.SparseZO([[1]]))
