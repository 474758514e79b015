"""FG2UZO against closed forms, with computed error bars."""

import numpy as np
import pytest
import torch
from scipy.special import stdtrit

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll
from zo_bilevel.estimators.directions import draw_directions
from zo_bilevel.estimators.sketch import Sketch
from zo_bilevel.estimators.slope_regression import SlopeRegression
from zo_bilevel.problem.prior import Prior
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.tasks.quadratic_form import make_quadratic_form

RANDOM_FAMILIES = ["orthogonal", "rademacher", "gaussian", "coordinate"]
NUM_DRAWS = 400
SIZE = 6
BOUND = 6.0  # of the box in the user's units: one scaled unit is 2
UNIT = BOUND / 3.0


class Case:
    """A quadratic, a point, its exact scaled hypergradient, and sketches with any seed."""

    def __init__(self, estimator, curvature=0.0, penalty=0.0, correlation_length=None):
        self.form = make_quadratic_form(
            SIZE, seed=1, condition=10.0, curvature=curvature, penalty=penalty
        )
        self.estimator = estimator
        field = zb.Real(-BOUND, BOUND, (SIZE,), correlation_length)
        misfit = zb.SquaredError(self.form.target, weights=0.5 * SIZE)  # sums, not means
        outer = self.penalised if penalty else misfit
        self.problem = zb.Problem(zb.Space(phi=field), self.inner, outer)
        self.phi = np.linspace(-1.0, 2.0, SIZE)
        self.exact = self.form.hypergradient(self.phi) * UNIT

    def inner(self, phi):
        return self.form.solution(phi["phi"])

    def penalised(self, theta, phi):
        import torch

        residual = theta - torch.from_numpy(self.form.target)
        return 0.5 * ((residual**2).sum() + self.form.penalty * (phi["phi"] ** 2).sum())

    def sketch(self, seed):
        x = self.problem.space.encode({"phi": self.phi})
        plan = self.estimator.plan(self.problem.space, x, np.random.default_rng(seed), (0,))
        evaluator = Evaluator(self.problem, zb.Serial(), 0)
        evaluations = evaluator.evaluate(plan.points)
        return self.estimator.sketch(plan, evaluations, evaluator.bound), evaluator.bound

    def draws(self, count=NUM_DRAWS):
        return np.array(
            [g for g, _ in (s.hypergradient(b) for s, b in map(self.sketch, range(count)))]
        )


def distance_in_standard_errors(draws, exact):
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    return np.max(np.abs(draws.mean(axis=0) - exact) / error)


@pytest.mark.statistical
@pytest.mark.parametrize("family", [*RANDOM_FAMILIES, "prior"])
def test_mean_is_the_exact_hypergradient(family):
    length = 0.1 if family == "prior" else None
    case = Case(zb.FG2UZO(5, family, "central", radius=1e-3), correlation_length=length)
    draws = case.draws()
    # theta is linear in phi, so central differences are exact and any distance is sampling error
    assert distance_in_standard_errors(draws, case.exact) < 4.0
    for factor in (0.5, 2.0, 1.0 / SIZE):
        assert distance_in_standard_errors(factor * draws, case.exact) > 4.0


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("family", "formula"),
    [
        ("orthogonal", lambda n, b: (n - b) / b),
        ("coordinate", lambda n, b: (n - b) / b),
        ("rademacher", lambda n, b: (n - 1) / b),  # Lemma 3.1
        ("gaussian", lambda n, b: (n + 1) / b),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_variance_follows_its_formula(family, formula, count):
    case = Case(zb.FG2UZO(count, family, "central", radius=1e-3))
    squared = np.sum((case.draws(800) - case.exact) ** 2, axis=1)
    expected = formula(SIZE, count) * np.sum(case.exact**2)
    error = squared.std(ddof=1) / np.sqrt(len(squared))
    assert abs(squared.mean() - expected) < 4 * error + 1e-9
    assert abs(squared.mean() - 1.5 * expected) > 4 * error


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("family", ["orthogonal", "coordinate"])
def test_full_frames_are_exact_with_and_without_explicit_phi(family, penalty):
    case = Case(zb.FG2UZO(SIZE, family, "central", radius=1e-3), penalty=penalty)
    gradient, error = (lambda s: s[0].hypergradient(s[1]))(case.sketch(0))
    assert np.allclose(gradient, case.exact, rtol=1e-8)
    assert (error == 0).all()


@pytest.mark.parametrize("radius", [0.4, 0.2, 0.1])
def test_forward_difference_error_is_the_closed_form(radius):
    case = Case(zb.FG2UZO(3, radius=radius), curvature=0.7)
    sketch, _ = case.sketch(5)
    # in the user's units the step along v is radius * UNIT * v
    for v, jv in zip(sketch.V.T, sketch.JV.T, strict=True):
        exact = case.form.jacobian_product(case.phi, UNIT * v)
        bias = case.form.forward_difference_error(UNIT * v, radius)
        assert np.allclose(jv - exact, bias, rtol=1e-9, atol=1e-12)


def cubic(phi):
    return np.array([phi["a"] ** 3, np.sin(phi["b"])])


@pytest.mark.parametrize(("difference", "order"), [("forward", 1), ("central", 2)])
def test_bias_order_as_the_radius_halves(difference, order):
    space = zb.Space(a=zb.Real(-3, 3), b=zb.Real(-3, 3))
    problem = zb.Problem(space, cubic, zb.SquaredError([0.0, 0.0]))
    point = {"a": 1.2, "b": 0.4}
    exact = np.array([3 * 1.2**5, np.sin(0.4) * np.cos(0.4)])
    errors = []
    for radius in (0.08, 0.04, 0.02):
        estimator = zb.FG2UZO(2, "coordinate", difference, radius)
        gradient = zb.hypergradient(problem, point, estimator=estimator)
        found = np.array([gradient["a"].item(), gradient["b"].item()])
        errors.append(np.linalg.norm(found - exact))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.abs(orders - order).max() < 0.15


@pytest.mark.statistical
@pytest.mark.parametrize("family", [*RANDOM_FAMILIES, "prior"])
def test_reported_standard_error_is_the_true_spread(family):
    length = 0.1 if family == "prior" else None
    case = Case(zb.FG2UZO(4, family, "central", radius=1e-3), correlation_length=length)
    pairs = [s.hypergradient(b) for s, b in map(case.sketch, range(NUM_DRAWS))]
    # of axes that are not drawn nothing is known; the variance of those drawn stands for all
    predicted = np.array([np.nansum(e**2) for _, e in pairs])
    reported = predicted.mean()
    squared = np.array([np.sum((g - case.exact) ** 2) for g, _ in pairs])
    error = squared.std(ddof=1) / np.sqrt(NUM_DRAWS)
    spread = predicted.std(ddof=1) / np.sqrt(NUM_DRAWS)
    assert abs(reported - squared.mean()) < 4 * np.hypot(error, spread)


@pytest.mark.statistical
@pytest.mark.parametrize("family", ["orthogonal", "rademacher", "gaussian"])
@pytest.mark.parametrize("count", [2, 5, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(family, count):
    rng = np.random.default_rng(0)
    matrix, target = rng.normal(size=(60, 40)), rng.normal(size=60)
    x = rng.uniform(-2, 2, size=40)
    exact = 2.0 * matrix.T @ (matrix @ x - target) / 60
    space = zb.Space(a=zb.Real(-3, 3, shape=(40,)))
    problem = zb.Problem(space, lambda phi: matrix @ phi["a"], zb.SquaredError(target))
    estimator = zb.FG2UZO(count, family, "central", radius=1e-3)
    inside, normal = [], []
    for seed in range(150):
        found = zb.hypergradient(problem, {"a": x}, estimator=estimator, seed=seed)
        lower, upper = found.interval()["a"]
        inside.append((lower <= exact) & (exact <= upper))
        normal.append(np.abs(found["a"] - exact) <= 1.96 * found.standard_error["a"])
    assert 0.925 < np.mean(inside) < 0.975
    assert np.mean(normal) < 0.925  # what 1.96 standard errors cover: a wrong factor is seen


@pytest.mark.statistical
@pytest.mark.parametrize("family", ["orthogonal", "gaussian"])
@pytest.mark.parametrize("count", [2, 5, 20, 60])
def test_a_component_that_dominates_is_held_as_often(family, count):
    exact, prior = np.r_[10.0, np.full(39, 0.1)], Prior(40, [])
    rng, t, inside = np.random.default_rng(0), stdtrit(count - 1, 0.975), []
    for _ in range(800):
        V, _ = draw_directions(family, count, prior, rng)
        found = SlopeRegression(40, in_frames=family == "orthogonal")
        found.add(V[:, :1], exact @ V[:, :1])
        found.add(V[:, 1:], exact @ V[:, 1:])
        centre, error = found.result()
        inside.append(np.abs(centre - exact) <= t * error)
    share = np.mean(inside, axis=0)
    assert 0.927 < share[0] < 0.973  # three standard errors of 800 draws
    assert 0.94 < share[1:].mean() < 0.96


@pytest.mark.parametrize("estimator", [zb.FG2UZO(8), zb.FG2U(8, chunk=3)])
def test_intervals_of_both_estimators_lie_around_the_regression(estimator):
    # of one component that is not 0 a single direction tells the slope exactly
    loop = TorchUnroll(
        lambda phi: 3.0 * phi["a"][:1], lambda y, phi, t, b: y, 1, dtype=torch.float64
    )
    problem = zb.Problem(zb.Space(a=zb.Real(0, 3, shape=(40,))), loop, lambda y, phi: y.sum())
    found = zb.hypergradient(problem, estimator=estimator)
    low, high = found.interval()["a"]
    assert low[0] == pytest.approx(3.0, rel=1e-4)
    assert high[0] == pytest.approx(3.0, rel=1e-4)
    assert abs(found["a"][0] - 3.0) > 0.1
    assert ((low < 0) & (high > 0))[1:].mean() > 0.8


def test_an_interval_needs_a_probability():
    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), lambda phi: phi["a"], zb.SquaredError(1.0))
    with pytest.raises(zb.InputError, match=r"level must lie between 0 and 1, got 95"):
        zb.hypergradient(problem, {"a": 3.0}).interval(95)


@pytest.mark.statistical
def test_dropped_directions_leave_the_estimate_unbiased():
    case = Case(zb.FG2UZO(3, "rademacher", "central", radius=1e-3))
    rng = np.random.default_rng(3)
    kept = []
    for seed in range(NUM_DRAWS):
        sketch, bound = case.sketch(seed)
        alive = rng.random(3) > 0.3
        if alive.any():
            part = Sketch(
                sketch.x, sketch.theta, sketch.V[:, alive], sketch.JV[:, alive], sketch.U[:, alive]
            )
            kept.append(part.hypergradient(bound)[0])
    assert distance_in_standard_errors(np.array(kept), case.exact) < 4.0


@pytest.mark.parametrize("directions", ["rademacher", "coordinate"])
@pytest.mark.parametrize(("failing", "dropped"), [((3,), 0), ((3, 11), 1)])
def test_directions_that_fail_both_ways_are_dropped_alone(failing, dropped, directions):
    calls = []

    def sometimes(phi):
        calls.append(phi)
        return np.nan if len(calls) in failing else phi["a"][0] + 2.0 * phi["a"][1]

    problem = zb.Problem(zb.Space(a=zb.Real(-3, 3, (2,))), sometimes, zb.SquaredError(0.0))
    gradient = zb.hypergradient(problem, {"a": [1.0, 1.0]}, estimator=zb.FG2UZO(8, directions))
    assert gradient.dropped == dropped
    assert gradient.solves == 11  # with one that looks for noise, and one the other way
    if directions == "coordinate":  # four probes an axis, one of them lost
        np.testing.assert_allclose(gradient["a"], [6.0, 12.0], rtol=1e-6)


def test_probes_never_leave_the_bounds_and_bounded_points_keep_their_gradient():
    seen = []

    def inner(phi):
        seen.append(phi["a"])
        return phi["a"] ** 2

    problem = zb.Problem(zb.Space(a=zb.Log(1e-3, 10.0)), inner, zb.SquaredError(0.0))
    for a in (1e-3, 10.0):
        for difference in ("forward", "central"):
            estimator = zb.FG2UZO(4, "gaussian", difference)
            gradient = zb.hypergradient(problem, {"a": a}, estimator=estimator, seed=2)
            weight = gradient["a"].item() / (4 * a**3)
            assert np.isfinite(weight)
    assert min(seen) >= 1e-3
    assert max(seen) <= 10.0
    exact = zb.hypergradient(problem, {"a": 10.0}, estimator=zb.FG2UZO(1, "coordinate", "central"))
    assert exact["a"].item() == pytest.approx(4 * 10.0**3, rel=1e-3)


@pytest.mark.parametrize("family", [*RANDOM_FAMILIES, "prior"])
def test_duals_make_the_identity_in_the_mean(family):
    prior = Prior(5, [(slice(0, 4), (4,), 0.2)] if family == "prior" else [])
    rng = np.random.default_rng(0)
    products = np.array(
        [U @ V.T / 2 for V, U in (draw_directions(family, 2, prior, rng) for _ in range(4000))]
    )
    error = products.std(axis=0, ddof=1) / np.sqrt(len(products)) + 1e-12
    assert (np.abs(products.mean(axis=0) - np.eye(5)) < 4.5 * error).all()


def test_scalar_and_dict_solutions_give_the_same_gradient_as_vectors():
    def vector(phi):
        return np.array([phi["a"], phi["b"] ** 2])

    def named(phi):
        return {"first": phi["a"], "rest": {"x": 1}["x"] * np.array([phi["b"] ** 2])}

    space = zb.Space(a=zb.Real(-3, 3), b=zb.Real(-3, 3))
    target = {"first": 0.5, "rest": np.array([1.0])}
    problems = [
        zb.Problem(space, vector, zb.SquaredError([0.5, 1.0])),
        zb.Problem(space, named, zb.SquaredError(target)),
        zb.Problem(space, vector, zb.SquaredError([0.5, 1.0])).scalar,
        zb.Problem(space, lambda p: ((p["a"] - 0.5) ** 2 + (p["b"] ** 2 - 1) ** 2) / 2),
    ]
    estimator = zb.FG2UZO(2, "coordinate", "central")
    point = {"a": 1.0, "b": 2.0}
    gradients = [zb.hypergradient(p, point, estimator=estimator) for p in problems]
    for gradient in gradients:
        assert gradient["a"].item() == pytest.approx(0.5, rel=1e-5)
        assert gradient["b"].item() == pytest.approx(12.0, rel=1e-5)


def test_gauss_newton_model_of_a_linear_solver_is_its_hessian():
    case = Case(zb.FG2UZO(SIZE, "coordinate", "central"), penalty=0.3)
    sketch, bound = case.sketch(0)
    _, hessian = sketch.model(bound)
    linear = case.form.linear * UNIT
    exact = linear.T @ linear + 0.3 * UNIT**2 * np.eye(SIZE)
    assert np.allclose(hessian, sketch.V.T @ exact @ sketch.V, rtol=1e-6, atol=1e-8)


def test_integers_are_probed_by_whole_units():
    seen = set()

    def inner(phi):
        seen.add(phi["k"])
        return float(phi["k"])

    problem = zb.Problem(zb.Space(k=zb.Integer(0, 1000)), inner, zb.SquaredError(7.0))
    estimator, start = zb.FG2UZO(1, "coordinate"), problem.space.encode({"k": 500})
    plan = estimator.plan(problem.space, start, np.random.default_rng(0), (0,))
    evaluator = Evaluator(problem, zb.Serial(), 0)
    sketch = estimator.sketch(plan, evaluator.evaluate(plan.points), evaluator.bound)
    gradient = problem.space.named_gradient(plan.x, sketch.hypergradient(evaluator.bound)[0])
    assert seen == {500, 501} or seen == {499, 500}
    assert gradient["k"].item() == pytest.approx(2 * (500 - 7), rel=0.01)
    with pytest.raises(zb.UnsupportedProblemError, match="continuously, got k="):
        zb.hypergradient(problem, {"k": 500})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zb.FG2UZO(0), "num_directions, if not 'auto', must be a whole number >= 1, got 0"),
        (lambda: zb.FG2UZO(True), "num_directions, .* must be a whole number >= 1, got True"),
        (lambda: zb.FG2UZO(radius=True), "radius must be finite and > 0, got True"),
        (lambda: zb.FG2UZO(radius=-0.1), r"radius must be finite and > 0, got -0\.1"),
        (lambda: zb.FG2UZO(radius=0), "radius must be finite and > 0, got 0"),
        (lambda: zb.FG2UZO(radius=float("nan")), "radius must be finite and > 0, got nan"),
        (lambda: zb.FG2UZO(directions="orthogonall"), "did you mean 'orthogonal'"),
        (lambda: zb.FG2UZO(difference="backward"), "difference must be 'forward' or 'central'"),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(zb.InputError, match=message):
        make()


def test_a_difference_of_exactly_zero_is_no_derivative_of_zero():
    space = zb.Space(a=zb.Real(0, 5), b=zb.Real(0, 5))

    def coarse(phi):
        return np.array([float(f"{phi['a']:.2f}"), phi["b"] ** 2])

    problem = zb.Problem(space, coarse, zb.SquaredError([1.0, 1.0]))
    axes = zb.FG2UZO(2, directions="coordinate")
    with pytest.warns(RuntimeWarning, match="1 of 2 differences are exactly 0"):
        found = zb.hypergradient(problem, {"a": 3.0, "b": 2.0}, estimator=axes)
    assert np.isnan(found.standard_error["a"])
    assert found.standard_error["b"] == 0.0
    assert found["b"] == pytest.approx(12.0, rel=1e-4)
    wide = zb.FG2UZO(2, directions="coordinate", radius=0.5)
    found = zb.hypergradient(problem, {"a": 3.0, "b": 2.0}, estimator=wide)
    assert found["a"] == pytest.approx(2.0, rel=0.05)
    assert found.standard_error["a"] == 0.0


def test_a_coordinate_never_drawn_has_no_standard_error():
    space = zb.Space(v=zb.Real(-1, 1, shape=(6,)))
    problem = zb.Problem(space, lambda phi: phi["v"] + 1.0, zb.SquaredError(np.zeros(6)))
    axes = zb.FG2UZO(2, directions="coordinate")
    found = zb.hypergradient(problem, estimator=axes)
    drawn = found["v"] != 0.0
    assert drawn.sum() == 2
    assert np.isnan(found.standard_error["v"][~drawn]).all()
    assert np.isfinite(found.standard_error["v"][drawn]).all()
