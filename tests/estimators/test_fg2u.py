"""FG2U against exact hypergradients, with computed error bars; mutants must fail."""

import dataclasses

import numpy as np
import pytest
import torch
from unrolled import SmallNetwork, quadratic_loop

import zo_bilevel as zb
from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll
from zo_bilevel.estimators.differences import Differences
from zo_bilevel.estimators.direction_block import DirectionBlock
from zo_bilevel.estimators.directions import frame_correction
from zo_bilevel.estimators.orders import contracted, fitting
from zo_bilevel.estimators.sketch import Sketch
from zo_bilevel.run.evaluator import Evaluator

FAMILIES = ["orthogonal", "rademacher", "gaussian", "coordinate"]


@pytest.fixture(scope="module")
def network():
    return SmallNetwork(seed=0, num_steps=3)


@pytest.fixture(scope="module")
def jacobian(network):
    """Exact `V -> JV` for fast draws: one full sketch along the axes."""
    x = network.space.encode(network.phi)
    estimator = zb.FG2U(network.space.size, directions="coordinate", keep_tangents=True)
    plan = estimator.plan(network.space, x, np.random.default_rng(0), (0,))
    evaluator = Evaluator(network.problem, zb.Serial(), 0)
    sketch = estimator.sketch(plan, evaluator.evaluate(plan.points), evaluator.bound)
    return sketch.JV @ np.linalg.inv(sketch.V), sketch, evaluator.bound


def worst_error(draws, exact):
    """Largest distance of the mean from the truth, in its own standard errors."""
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    return np.max(np.abs(draws.mean(axis=0) - exact) / error)


@pytest.mark.statistical
@pytest.mark.parametrize("seed", [0, 1])
def test_mean_is_the_exact_hypergradient_of_a_random_network(seed):
    network = SmallNetwork(seed, num_steps=2)
    exact, _ = network.gradient(zb.ReverseUnroll())
    estimator = zb.FG2U(4, directions="rademacher")
    draws = np.array([network.gradient(estimator, draw=k)[0] for k in range(120)])
    assert worst_error(draws, exact) < 4.0
    assert worst_error(1.5 * draws, exact) > 4.0  # a factor that is wrong


@pytest.mark.statistical
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 3])
def test_variance_follows_lemma_3_1(network, jacobian, family, count):
    J, full, bound = jacobian
    exact, _ = network.gradient(zb.ReverseUnroll())
    size = exact.size
    factor = {"rademacher": size - 1, "gaussian": size + 1}.get(family, size - count) / count

    estimates = []
    for draw in range(500):
        rng = np.random.default_rng([5, draw])
        plan = zb.FG2U(count, directions=family).plan(network.space, full.x, rng, (0,))
        sketch = Sketch(full.x, full.theta, plan.V, J @ plan.V, plan.U)
        estimates.append(sketch.hypergradient(bound)[0])

    def mean_square(mutation):
        errors = np.sum((mutation * np.array(estimates) - exact) ** 2, axis=1)
        return np.mean(errors), np.std(errors, ddof=1) / np.sqrt(len(errors))

    expected = factor * np.sum(exact**2)
    mean, error = mean_square(1.0)
    assert abs(mean - expected) < 4.0 * error + 1e-12
    mean, error = mean_square(np.sqrt(2.0))  # a wrong sqrt(2) in the scaling
    assert abs(mean - expected) > 4.0 * error


@pytest.mark.statistical
def test_standard_error_covers_the_truth(network, jacobian):
    J, full, bound = jacobian
    exact, _ = network.gradient(zb.ReverseUnroll())
    inside = []
    for draw in range(400):
        rng = np.random.default_rng([6, draw])
        plan = zb.FG2U(16, directions="gaussian").plan(network.space, full.x, rng, (0,))
        estimate, error = Sketch(full.x, full.theta, plan.V, J @ plan.V, plan.U).hypergradient(
            bound
        )
        inside.append(np.abs(estimate - exact) < 2.0 * error)
    assert 0.88 < np.mean(inside) < 0.98


@pytest.mark.parametrize("family", ["orthogonal", "coordinate"])
def test_as_many_directions_as_parameters_are_exact(network, family):
    exact, _ = network.gradient(zb.ReverseUnroll())
    estimate, error = network.gradient(zb.FG2U(network.space.size, directions=family))
    np.testing.assert_allclose(estimate, exact, rtol=1e-10, atol=1e-12)
    assert not error.any()


@pytest.mark.parametrize("estimator", [zb.FG2U(4), zb.FG2U(5, keep_tangents=True), zb.FG2UZO(4)])
def test_more_directions_than_parameters_are_exact(estimator):
    loop = TorchUnroll(lambda phi: phi["a"], lambda y, phi, t, b: y, 1, dtype=torch.float64)
    problem = zb.Problem(zb.Space(a=zb.Real(0, 4, shape=(3,))), loop, lambda y, phi: (y**2).sum())
    found = zb.hypergradient(problem, {"a": [1.0, 2.0, 3.0]}, estimator=estimator)
    np.testing.assert_allclose(found["a"], [2.0, 4.0, 6.0], rtol=1e-4)
    assert not found.standard_error["a"].any()
    assert found.num_directions == 3


def test_chunks_do_not_change_the_estimate():
    network = SmallNetwork(0, num_steps=4)
    whole, _ = network.gradient(zb.FG2U(5, chunk=5))
    for chunk in (1, 2, 3):
        parts, _ = network.gradient(zb.FG2U(5, chunk=chunk))
        np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_finite_differences_tend_to_the_exact_derivative_at_their_order():
    network = SmallNetwork(1)

    def miss(difference, radius):
        x = network.space.encode(network.phi)
        evaluator = Evaluator(network.problem, zb.Serial(), 0)
        sketches = []
        for estimator in (
            zb.FG2U(4, keep_tangents=True),
            zb.FG2UZO(4, difference=difference, radius=radius),
        ):
            plan = estimator.plan(network.space, x, np.random.default_rng(1), (0,))
            evaluations = evaluator.evaluate(plan.points)
            sketches.append(estimator.sketch(plan, evaluations, evaluator.bound))
        np.testing.assert_array_equal(sketches[0].V, sketches[1].V)
        return np.abs(sketches[0].JV - sketches[1].JV).max()

    for difference, order in (("forward", 1), ("central", 2)):
        misses = [miss(difference, radius) for radius in (4e-2, 2e-2, 1e-2)]
        orders = np.log2(np.array(misses[:-1]) / misses[1:])
        np.testing.assert_allclose(orders, order, atol=0.25)


def test_directions_beyond_the_dense_limit_are_drawn_from_seeds(monkeypatch, network):
    monkeypatch.setattr("zo_bilevel.estimators.fg2u.DENSE_NUMBERS", 0)
    exact, _ = network.gradient(zb.ReverseUnroll())
    estimator = zb.FG2U(network.space.size, chunk=network.space.size)
    x = network.space.encode(network.phi)
    plan = estimator.plan(network.space, x, np.random.default_rng(0), (0,))
    assert plan.V.size == 0
    np.testing.assert_allclose(network.gradient(estimator)[0], exact, rtol=1e-10, atol=1e-12)
    estimate, error = network.gradient(zb.FG2U(40, chunk=16, directions="gaussian"))
    assert np.all(np.abs(estimate - exact) < 6 * error)


@pytest.mark.parametrize("family", ["gaussian", "orthogonal", "prior"])
@pytest.mark.parametrize("seeded", [False, True])
def test_slopes_give_what_whole_tangents_give(monkeypatch, network, family, seeded):
    """Chunks of unequal size, so that merging their spreads counts."""
    if seeded:
        monkeypatch.setattr("zo_bilevel.estimators.fg2u.DENSE_NUMBERS", 0)
    x = network.space.encode(network.phi)
    estimator = zb.FG2U(5 if family == "gaussian" else 4, chunk=3, directions=family)
    evaluator = Evaluator(network.problem, zb.Serial(), 0)
    plan = estimator.plan(network.space, x, np.random.default_rng(0), (0,))
    sketch = estimator.sketch(plan, evaluator.evaluate(plan.points), evaluator.bound)
    blocks = [duals for duals, _ in sketch.chunks]
    if seeded:
        drawn = [block.draw(network.space) for block in blocks]
        V, U = (np.concatenate(part, axis=1) for part in zip(*drawn, strict=True))
    else:
        V, U = plan.V, plan.U
    whole = Differences("exact", x, V, network.space)
    JV = evaluator.evaluate(whole.points((0,)))[0].derivative
    correction = frame_correction(family, V.shape[1], x.size)
    same = Sketch(x, sketch.theta, V, JV, U, correction)
    for left, right in zip(
        sketch.hypergradient(evaluator.bound), same.hypergradient(evaluator.bound), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-9)


def test_only_the_first_chunk_brings_theta_home(network):
    x = network.space.encode(network.phi)
    plan = zb.FG2U(5, chunk=2).plan(network.space, x, np.random.default_rng(0), (0,))
    evaluator = Evaluator(network.problem, zb.Serial(), 0)
    outcomes = evaluator.outcomes(dict(enumerate(plan.points)))
    size = evaluator.evaluate(plan.points)[0].theta.size
    assert [outcomes[k].theta.size for k in range(3)] == [size, 1, 1]
    assert [outcomes[k].derivative.shape for k in range(3)] == [(2,), (2,), (1,)]
    evaluations = evaluator.evaluate(plan.points)
    assert all(e.theta is evaluations[0].theta for e in evaluations)
    assert len({e.loss for e in evaluations}) == 1


def test_a_failed_first_chunk_loses_the_sketch_and_says_so(network):
    def fails_at_once(phi, tangents, *, seed):
        raise RuntimeError("no device")

    problem = SmallNetwork(seed=0, num_steps=3).problem
    problem.inner.jvp = fails_at_once
    with pytest.raises(zb.InnerSolverError, match="no device"):
        zb.hypergradient(problem, network.phi, estimator=zb.FG2U(4, chunk=2))


def test_a_chunk_that_runs_out_of_memory_is_halved():
    asked = []

    def push(part):
        asked.append(part.shape[1])
        if part.shape[1] > 2:
            raise RuntimeError("CUDA error: out of memory")
        return "theta", 10.0 * part

    directions = np.arange(14.0).reshape(2, 7)
    found = list(fitting(push, directions))
    np.testing.assert_array_equal(np.concatenate([p for _, _, p in found], axis=1), 10 * directions)
    assert max(part.shape[1] for part, _, _ in found) == 2
    assert asked[0] == 7


def test_one_direction_that_does_not_fit_is_a_failure():
    asked = []

    def push(part):
        asked.append(part.shape[1])
        raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        list(fitting(push, np.ones((2, 4))))
    assert asked == [4, 2, 1]


def test_contraction_is_in_double_precision_whatever_the_tangents_are():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(3, 4, 2)).astype(np.float32), rng.normal(size=(3, 5))]
    gradient = rng.normal(size=13)
    flat = np.concatenate([part.reshape(3, -1).astype(float) for part in parts], axis=1)
    np.testing.assert_allclose(contracted(parts, gradient), flat @ gradient, rtol=1e-14)
    tensors = [torch.from_numpy(part) for part in parts]
    np.testing.assert_allclose(contracted(tensors, gradient), flat @ gradient, rtol=1e-14)


class TestSeededDirections:
    SIZE = 37
    SPACE = zb.Space(a=zb.Real(-1, 1, shape=(SIZE,)))

    def block(self, family, count, start=0, total=None, entropy=5):
        return DirectionBlock(family, count, entropy, start, count if total is None else total)

    @pytest.mark.parametrize("family", ["rademacher", "gaussian", "orthogonal"])
    def test_any_part_is_the_same_as_in_the_whole(self, family):
        whole = self.block(family, 9).draw(self.SPACE)[0]
        part = self.block(family, 4, 3, 9).draw(self.SPACE)[0]
        np.testing.assert_array_equal(part, whole[:, 3:7])

    @pytest.mark.parametrize("family", ["rademacher", "gaussian", "orthogonal"])
    def test_torch_draws_the_same_numbers(self, family):
        from zo_bilevel.estimators import direction_block

        home = self.block(family, 5).draw(self.SPACE)[0]
        rows = torch.arange(self.SIZE)
        columns = [self.block(family, 5)._column(rows, place) for place in range(5)]
        np.testing.assert_allclose(torch.stack(columns, dim=1).numpy(), home, atol=1e-13)
        assert direction_block._count_up(3, "meta").device.type == "meta"

    def test_orthogonal_ones_are_orthogonal_across_blocks_and_a_whole_frame_is_exact(self):
        parts = [self.block("orthogonal", 10, k, 37).draw(self.SPACE)[0] for k in (0, 10, 20)]
        V = np.concatenate(
            [*parts, self.block("orthogonal", 7, 30, 37).draw(self.SPACE)[0]], axis=1
        )
        np.testing.assert_allclose(V.T @ V, self.SIZE * np.eye(37), atol=1e-10)
        np.testing.assert_allclose(V @ V.T / 37, np.eye(37), atol=1e-12)

    @pytest.mark.statistical
    @pytest.mark.parametrize("family", ["rademacher", "gaussian", "orthogonal"])
    def test_mean_and_mean_square_of_the_estimate(self, family):
        gradient = np.linspace(-1.0, 2.0, self.SIZE)
        count, draws = 3, 3000
        estimates = np.empty((draws, self.SIZE))
        for entropy in range(draws):
            V = self.block(family, count, entropy=entropy).draw(self.SPACE)[0]
            estimates[entropy] = V @ (V.T @ gradient) / count
        error = estimates.std(axis=0, ddof=1) / np.sqrt(draws)
        assert np.max(np.abs(estimates.mean(axis=0) - gradient) / error) < 4.5
        assert np.max(np.abs(1.2 * estimates.mean(axis=0) - gradient) / error) > 4.5
        size = self.SIZE
        factor = {"rademacher": size - 1, "gaussian": size + 1}.get(family, size - count) / count
        squares = np.sum((estimates - gradient) ** 2, axis=1) / np.sum(gradient**2)
        assert abs(squares.mean() - factor) < 4 * squares.std(ddof=1) / np.sqrt(draws)

    def test_bits_are_balanced_and_columns_are_apart(self):
        space = zb.Space(a=zb.Real(-1, 1, shape=(20000,)))
        V = self.block("rademacher", 6).draw(space)[0]
        correlations = V.T @ V / 20000 - np.eye(6)
        assert np.abs(correlations).max() < 4.5 / np.sqrt(20000)
        assert np.abs(V.mean(axis=0)).max() < 4.5 / np.sqrt(20000)
        assert np.abs((V[1:] * V[:-1]).mean(axis=0)).max() < 4.5 / np.sqrt(20000)


def test_a_lost_chunk_drops_out_and_the_rest_stays(network):
    x = network.space.encode(network.phi)
    estimator = zb.FG2U(5, chunk=2)
    plan = estimator.plan(network.space, x, np.random.default_rng(0), (0,))
    evaluator = Evaluator(network.problem, zb.Serial(), 0)
    evaluations = evaluator.evaluate(plan.points)
    lost = dataclasses.replace(evaluations[1], status="crashed", theta=None, derivative=None)
    sketch = estimator.sketch(plan, [evaluations[0], lost, evaluations[2]], evaluator.bound)
    assert sketch.num_directions == 3
    assert sketch.dropped == 2
    kept = np.concatenate([U for U, _ in sketch.chunks], axis=1)
    np.testing.assert_array_equal(kept, plan.U[:, [0, 1, 4]])


def test_solves_count_directions_and_the_budget_holds():
    network = SmallNetwork(0, num_steps=2)
    result = zb.minimize(
        network.problem, zb.GradientMethod(zb.FG2U(4, chunk=2), lr=0.1), max_solves=40
    )
    assert result.solves <= 40
    counts = [record.solve for record in result.history if record.role == "sketch"]
    assert set(np.diff(counts)) == {3}  # a chunk of two directions counts for three


def test_a_hidden_inner_solution_gives_the_same_hypergradient(network):
    seen = network.gradient(zb.FG2U(3))[0]
    hidden = SmallNetwork(seed=0, num_steps=3)
    hidden.problem = hidden.problem.scalar
    np.testing.assert_allclose(hidden.gradient(zb.FG2U(3))[0], seen, rtol=1e-12)


def test_gauss_newton_model_from_exact_derivatives():
    loop, matrix, _ = quadratic_loop(200)
    space = zb.Space(p=zb.Real(-3, 3, shape=(3,)))
    problem = zb.Problem(space, loop, zb.SquaredError(np.ones(4), weights=4.0))
    evaluator = Evaluator(problem, zb.Serial(), 0)
    estimator = zb.FG2U(3, keep_tangents=True)
    plan = estimator.plan(space, np.zeros(3), np.random.default_rng(0), (0,))
    sketch = estimator.sketch(plan, evaluator.evaluate(plan.points), evaluator.bound)
    gradient, hessian = sketch.model(evaluator.bound)
    step = plan.V @ np.linalg.solve(hessian, -gradient)
    np.testing.assert_allclose(step, np.linalg.lstsq(matrix, np.ones(4), rcond=None)[0], atol=1e-9)


def test_a_coordinate_never_drawn_has_no_standard_error():
    space = zb.Space(x=zb.Real(-3, 3, shape=(6,)))
    loop = TorchUnroll(lambda phi: 0 * phi["x"], lambda theta, phi, t, batch: phi["x"] * 1.0, 1)
    problem = zb.Problem(space, loop, loop.outer(lambda theta, phi: theta.sum()))
    for count in (1, 2, 8):
        estimator = zb.FG2U(count, directions="coordinate", chunk=2)
        found = zb.hypergradient(problem, estimator=estimator)
        drawn = found["x"] != 0.0
        assert drawn.sum() == min(count, 6)
        expected = drawn if count > 1 else np.zeros(6, dtype=bool)
        np.testing.assert_array_equal(np.isfinite(found.standard_error["x"]), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_directions": 0}, "num_directions must be >= 1"),
        ({"chunk": 0}, "chunk must be >= 1"),
        ({"directions": "orthogonl"}, "did you mean 'orthogonal'"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(zb.InputError, match=message):
        zb.FG2U(**options)


def test_a_black_box_is_refused_with_the_way_out():
    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), lambda phi: phi["a"], zb.SquaredError(1.0))
    with pytest.raises(zb.UnsupportedProblemError, match="use FG2UZO for a black box"):
        zb.hypergradient(problem, estimator=zb.FG2U(1))


def test_a_discrete_parameter_is_refused_by_name(network):
    space = zb.Space(shift=zb.Real(-1, 1, shape=(3,)), order=zb.Integer(1, 3))
    problem = zb.Problem(space, network.loop, network.loop.outer(network.outer))
    with pytest.raises(zb.UnsupportedProblemError, match="continuously, got order="):
        zb.hypergradient(problem, estimator=zb.FG2U(1))


def test_a_plain_outer_function_is_refused(network):
    problem = zb.Problem(network.space, network.loop, lambda theta, phi: float(theta["second"][0]))
    with pytest.raises(zb.UnsupportedProblemError, match="outer objective whose derivative"):
        zb.hypergradient(problem, network.phi, estimator=zb.FG2U(1))
