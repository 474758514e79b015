"""TwoPhase: budgets, signal-to-noise, hand-over; accumulation over rounds."""

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll
from zo_bilevel.methods.base import Method
from zo_bilevel.methods.switches import Progress
from zo_bilevel.run.evaluator import Evaluator

SPACE = zb.Space(p=zb.Real(-3, 3, shape=(2,)))


def solver(phi):
    return phi["p"] - np.array([1.0, -2.0])


def noisy(phi, *, seed):
    return solver(phi) + 0.3 * np.random.default_rng(seed).normal(size=2)


PROBLEM = zb.Problem(SPACE, solver, zb.SquaredError(np.zeros(2)))


def descent(lr=0.1, **options):
    return zb.GradientMethod(zb.FG2UZO(2), optimizer=torch.optim.SGD, lr=lr, **options)


class Fixed(Method):
    """Asks for given points, one a round, and remembers where it started."""

    def __init__(self, points):
        self.points = points
        self.started_at = None

    @property
    def name(self):
        return "fixed"

    def rounds(self, search):
        self.started_at = search.start
        for x in self.points:
            yield [zb.Point(np.asarray(x, dtype=float))]
        return "out of points"


def points_of(method, problem=PROBLEM, rounds=30, seed=0):
    state, asked = method.start(problem, seed), []
    evaluator = Evaluator(problem, zb.Serial(), seed)
    while method.ask(state) and len(asked) < rounds:
        asked.append(method.ask(state))
        state = method.tell(state, evaluator.evaluate(method.ask(state)))
    return asked, state


class TestSwitch:
    def test_each_phase_gets_its_solves_and_the_last_what_is_left(self):
        method = zb.TwoPhase([(Fixed([[0, 0]] * 9), 4), (Fixed([[1, 1]] * 9), None)])
        asked, state = points_of(method)
        assert [tuple(points[0].x) for points in asked] == [(0, 0)] * 4 + [(1, 1)] * 9
        assert state.stop_reason == "out of points"

    def test_a_phase_that_stops_by_itself_hands_over(self):
        second = Fixed([[1, 1]])
        points_of(zb.TwoPhase([(Fixed([[0.5, 0]]), 100), (second, None)]))
        np.testing.assert_array_equal(second.started_at, [0.5, 0])

    @pytest.mark.parametrize(("start_from", "expected"), [("best", [1, -2]), ("last", [0, 0])])
    def test_the_next_phase_starts_at_the_best_or_the_last_point(self, start_from, expected):
        first, second = Fixed([[3, 3], [1, -2], [0, 0]]), Fixed([[0, 0]])
        points_of(zb.TwoPhase([(first, 3), (second, None)], start_from=start_from))
        np.testing.assert_array_equal(second.started_at, expected)

    def test_the_last_point_of_a_descent_includes_its_last_step(self):
        second = Fixed([[0, 0]])
        points_of(zb.TwoPhase([(descent(lr=0.5), 3), (second, None)], start_from="last"))
        # one step of SGD at 0.5 on mean((p - c)^2) from 0 is half way
        np.testing.assert_allclose(second.started_at, [0.5, -1.0], atol=1e-4)

    def test_a_round_that_no_longer_fits_is_left_to_the_next_phase(self):
        asked, _ = points_of(zb.TwoPhase([(descent(), 7), (Fixed([[0, 0]]), None)]))
        assert [len(points) for points in asked] == [3, 3, 1]

    def test_phases_draw_other_random_numbers(self):
        asked, _ = points_of(zb.TwoPhase([(descent(0.0), 3), (descent(0.0), 3)]))
        assert asked[0][0].stream != asked[1][0].stream
        assert not np.array_equal(asked[0][1].x, asked[1][1].x)

    def test_a_single_phase_is_the_method_itself(self):
        alone, _ = points_of(descent(), rounds=5)
        wrapped, _ = points_of(zb.TwoPhase([(descent(), None)]), rounds=5)
        for left, right in zip(alone, wrapped, strict=True):
            for a, b in zip(left, right, strict=True):
                np.testing.assert_array_equal(a.x, b.x)
                assert a.stream == b.stream

    def test_same_seed_same_numbers(self):
        method = zb.TwoPhase([(descent(), 9), (descent(0.05), None)])
        runs = [zb.minimize(PROBLEM, method, max_solves=30, seed=s) for s in (1, 1, 2)]
        np.testing.assert_array_equal(runs[0].x, runs[1].x)
        assert not np.array_equal(runs[0].x, runs[2].x)


class TestSignalToNoise:
    def test_the_ratio_is_that_of_a_mean_to_its_standard_error(self):
        draws = np.random.default_rng(0).normal([3.0, 0.0], 1.0, size=(50, 2))
        expected = np.sum(draws.mean(0) ** 2) / (draws.var(0, ddof=1).sum() / 50)
        assert zb.SignalToNoise().ratio(list(draws)) == pytest.approx(expected)

    def test_noise_alone_has_ratio_one(self):
        rng = np.random.default_rng(1)
        rule = zb.SignalToNoise()
        ratios = [rule.ratio(list(rng.normal(size=(10, 30)))) for _ in range(300)]
        assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)

    def test_exact_repetition_never_ends_a_phase(self):
        assert zb.SignalToNoise().ratio([np.ones(2)] * 5) == np.inf

    def test_it_ends_a_phase_once_the_descent_has_arrived(self):
        problem = zb.Problem(SPACE, noisy, zb.SquaredError(np.zeros(2)))
        rule = zb.SignalToNoise(below=3.0, window=8)
        second = Fixed([[0, 0]])
        method = zb.TwoPhase([(descent(0.2), rule), (second, None)], start_from="last")
        asked, _ = points_of(method, problem, rounds=200)
        assert 8 <= len(asked) < 150
        np.testing.assert_allclose(second.started_at, [1.0, -2.0], atol=0.5)

    def test_it_has_a_limit_too(self):
        rule = zb.SignalToNoise(below=1e-9, window=2, max_solves=6)
        asked, _ = points_of(zb.TwoPhase([(descent(), rule), (Fixed([[0, 0]]), None)]))
        assert [len(points) for points in asked] == [3, 3, 1]


class TestAccumulation:
    def test_rounds_are_averaged_before_a_step(self):
        asked, _ = points_of(descent(0.3, accumulate=3), rounds=7)
        starts = np.array([points[0].x for points in asked])
        np.testing.assert_array_equal(starts[0], starts[1])
        np.testing.assert_array_equal(starts[0], starts[2])
        assert not np.array_equal(starts[2], starts[3])
        np.testing.assert_array_equal(starts[3], starts[5])
        assert len({points[0].stream for points in asked}) == 7

    def test_the_step_is_that_of_the_mean_gradient(self):
        estimator = zb.FG2UZO(1, directions="rademacher")

        def run(accumulate, rounds):
            method = zb.GradientMethod(
                estimator, optimizer=torch.optim.SGD, lr=0.1, accumulate=accumulate
            )
            return points_of(method, rounds=rounds)[0]

        asked = run(4, 5)
        evaluator = Evaluator(PROBLEM, zb.Serial(), 0)
        gradients = []
        for step, points in enumerate(asked[:4]):
            sequence = np.random.SeedSequence(0, spawn_key=(1 << 20, step))
            plan = estimator.plan(SPACE, points[0].x, np.random.default_rng(sequence), (step,))
            evaluations = evaluator.evaluate(plan.points)
            sketch = estimator.sketch(plan, evaluations, evaluator.bound)
            gradients.append(sketch.hypergradient(evaluator.bound)[0])
        expected = asked[0][0].x - 0.1 * np.mean(gradients, axis=0)
        np.testing.assert_allclose(asked[4][0].x, expected, rtol=1e-12)

    def test_it_must_be_positive(self):
        with pytest.raises(zb.InputError, match="accumulate must be a whole number >= 1, got 0"):
            zb.GradientMethod(accumulate=0)


def test_biased_then_unbiased_goes_where_the_biased_one_cannot():
    def init(phi):
        return phi["start"] * torch.ones(2, dtype=torch.float64)

    def step(theta, phi, t, batch):
        return theta - 0.2 * (theta - phi["pull"])

    # truncation does not see the start
    loop = TorchUnroll(init, step, 5, dtype=torch.float64, allow_unreached=["start"])
    outer = loop.outer(lambda theta, phi: ((theta - 1.0) ** 2).sum() + phi["pull"] ** 2)
    problem = zb.Problem(zb.Space(start=zb.Real(-9, 9), pull=zb.Real(-9, 9)), loop, outer)
    cheap = zb.GradientMethod(zb.TruncatedUnroll(2), lr=0.1)
    exact = zb.GradientMethod(zb.FG2U(2), lr=0.1)

    def loss(method):
        return zb.minimize(problem, method, max_solves=150).loss

    assert loss(zb.TwoPhase([(cheap, 60), (exact, None)])) < 0.5 * loss(cheap)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "phases must hold at least one"),
        ([(descent(), 0)], "whole number >= 1, got 0"),
        ([(descent(), None), (descent(), 5)], "phase 1 is never reached"),
        ([(3, 5)], "phase 0 must be a Method, got int"),
        ([(Fixed([]), zb.SignalToNoise())], "fixed tells no hypergradient"),
        ([(Fixed([]), zb.BiasSeen())], "so BiasSeen cannot end it"),
        ([(descent(), "soon")], "must end at a rule, 'auto' or solves, got 'soon'"),
    ],
)
def test_bad_phases_are_refused(phases, message):
    with pytest.raises(zb.InputError, match=message):
        zb.TwoPhase(phases)


def test_a_first_phase_too_short_for_one_round_is_refused():
    method = zb.TwoPhase([(descent(), 2), (descent(), None)])
    with pytest.raises(zb.InputError, match="budget of 2 solves, but its first round needs 3"):
        zb.minimize(PROBLEM, method, max_solves=10)


class TestPlateau:
    @pytest.mark.parametrize("solves", [1, 7])
    def test_it_compares_the_gain_of_a_solve_with_that_of_the_phase(self, solves):
        losses = 2.0 ** -np.arange(12.0)
        counts = solves * np.arange(1, 13)
        seen = Progress(list(losses), list(counts))
        before, now = losses[6:9].mean(), losses[9:].mean()
        ratio = (before - now) / (3 * solves) / ((1 - before) / (7 * solves))
        assert zb.Plateau(1.01 * ratio, 3).reason(seen) == (
            f"a solve gained {ratio:.3g} times what it did before"
        )
        assert not zb.Plateau(0.99 * ratio, 3).reason(seen)

    def test_a_steady_fall_is_no_plateau_and_failed_rounds_do_not_count(self):
        steady = Progress(list(np.linspace(5, 1, 40)), list(range(1, 41)))
        assert not zb.Plateau(0.9).reason(steady)
        steady.losses[20] = np.inf
        assert not zb.Plateau(0.9).reason(steady)
        assert not zb.Plateau(window=20).reason(steady)  # too short to tell

    def test_it_ends_a_descent_that_has_arrived(self):
        second = Fixed([[0, 0]])
        asked, _ = points_of(zb.TwoPhase([(descent(0.4), zb.Plateau(window=3)), (second, None)]))
        assert 9 <= len(asked) < 20


def slow_and_fast_loop():
    """Truncation sees the fast mode alone, and is wrong about where the sum should be."""
    rates = torch.tensor([0.5, 0.06], dtype=torch.float64)

    def step(theta, phi, t, batch):
        return theta - rates * (theta - phi["p"].sum())

    loop = TorchUnroll(lambda phi: torch.zeros(2, dtype=torch.float64), step, 20)
    loop.dtype = torch.float64
    outer = loop.outer(lambda theta, phi: (theta[0] - 1.0) ** 2 + (theta[1] + 2.0) ** 2)
    return zb.Problem(SPACE, loop, outer)


class TestBiasSeen:
    @pytest.mark.parametrize("estimator", [zb.FG2U(1), zb.FG2UZO(1, radius=1e-5)])
    def test_agreement_is_the_true_slope_along_the_hypergradient(self, estimator):
        problem = slow_and_fast_loop()
        first = zb.GradientMethod(zb.TruncatedUnroll(3), lr=0.01)
        phases = [(first, zb.BiasSeen(1e-9, every=2)), (zb.GradientMethod(estimator), None)]
        seen = []

        def reason(self, progress):
            seen.append(dict(progress.agreement))
            return ""

        patched = pytest.MonkeyPatch()
        patched.setattr(zb.BiasSeen, "reason", reason)
        try:
            asked, _ = points_of(zb.TwoPhase(phases), problem, rounds=6)
        finally:
            patched.undo()
        x = asked[1][0].x
        phi = {"p": x}  # one scaled unit is one of the user's
        true = zb.hypergradient(problem, phi, estimator=zb.ReverseUnroll())["p"]
        biased = zb.hypergradient(problem, phi, estimator=zb.TruncatedUnroll(3))["p"]
        expected = true @ biased / (biased @ biased)
        assert seen[-1][2] == pytest.approx(expected, rel=1e-3)
        assert abs(expected - 1.0) > 0.01  # a difference that matters

    def test_it_ends_a_phase_at_its_biased_point_and_not_an_exact_one(self):
        problem = slow_and_fast_loop()
        exact = zb.GradientMethod(zb.FG2U(2), lr=0.1)
        rule = zb.BiasSeen(every=2)

        def rounds_of(estimator):
            second = zb.TwoPhase([(zb.GradientMethod(estimator, lr=0.1), rule), (exact, None)])
            asked, _ = points_of(second, problem, rounds=60)
            return sum(len(points[0].stream) == 1 for points in asked)

        assert rounds_of(zb.TruncatedUnroll(3)) < 50
        assert rounds_of(zb.ReverseUnroll()) == 60

    def test_every_look_is_paid_for(self):
        first = zb.GradientMethod(zb.ReverseUnroll(), lr=0.01)
        rule = zb.BiasSeen(every=1, max_solves=12)
        method = zb.TwoPhase([(first, rule), (Fixed([[0, 0]]), None)])
        asked, _ = points_of(method, slow_and_fast_loop())
        solves = [sum(point.solves for point in points) for points in asked]
        assert solves == [2, 1, 2, 1, 2, 1, 2, 1, 1]  # a look at a black box is one solve
        with pytest.raises(zb.InputError, match="every must be a whole number >= 1"):
            zb.BiasSeen(every=0)


def test_signal_to_noise_does_not_stay_at_a_biased_point_for_ever():
    """Exact hypergradients have no noise, wherever they lead."""
    first = zb.GradientMethod(zb.TruncatedUnroll(3), lr=0.1)
    second = Fixed([[0, 0]])
    method = zb.TwoPhase([(first, zb.SignalToNoise(1e-9, window=5)), (second, None)])
    asked, _ = points_of(method, slow_and_fast_loop(), rounds=200)
    assert len(asked) < 150
    assert second.started_at is not None


def test_auto_ends_the_first_phase_by_itself():
    problem = slow_and_fast_loop()
    biased = zb.GradientMethod(zb.TruncatedUnroll(3), lr=0.1)
    exact = zb.GradientMethod(zb.FG2U(2), lr=0.03)
    alone = zb.minimize(problem, biased, max_solves=200).loss
    both = zb.minimize(problem, zb.TwoPhase([(biased, "auto"), (exact, None)]), max_solves=200).loss
    assert both < alone - 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [({"below": 0.0}, "below must be finite and > 0"), ({"window": 1}, "window must")],
)
def test_bad_signal_to_noise(options, message):
    with pytest.raises(zb.InputError, match=message):
        zb.SignalToNoise(**options)
