"""Searches for many parameters: what they find, where bounds hold, and under noise."""

import math

import numpy as np
import pytest
from scipy import fft

import zo_bilevel as zb
from zo_bilevel.methods.base import Search
from zo_bilevel.methods.trust_region.block_descent import BlockDescent
from zo_bilevel.methods.trust_region.block_directions import BlockDirections
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.noisy_descent import NoisyDescent
from zo_bilevel.solve.evaluation import Evaluation, Point

SIZE = 120


def cosines(size):
    def make():
        for index in range(size):
            yield fft.idct(np.eye(1, size, index)[0], norm="ortho")

    return make


def blocks(size=SIZE, width=1, half=3.0):
    box = (np.full(size, -half), np.full(size, half))
    return BlockDirections(cosines(size), box, np.random.default_rng(3), width)


def quadratic(size, condition, seed=0):
    rng = np.random.default_rng([seed, size])
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    curvatures = np.logspace(0, np.log10(condition), size)
    minimum = rng.uniform(-1.8, 1.8, size)

    def loss(x):
        away = basis @ (x - minimum)
        return 0.5 * float(curvatures @ away**2)

    return loss, minimum, float(curvatures.mean())


def part_at(start, width=1, half=3.0):
    """The coordinates of a problem whose losses the test makes itself."""
    problem = zb.Problem(zb.Space(x=zb.Real(-half, half, (len(start),))), lambda phi: 0.0)
    first = Evaluation(Point(start), "ok", np.zeros(1), 0.0)
    return ContinuousPart(Search(problem, start, round_width=width), first)


def solved(points, loss):
    """Evaluations of points; a loss of `None` is a failure."""
    values = [loss(point.x) for point in points]
    return [
        Evaluation(point, "failed", None, math.inf)
        if value is None
        else Evaluation(point, "ok", np.zeros(1), value)
        for point, value in zip(points, values, strict=True)
    ]


def drive(search, loss, solves):
    """Run; the number of rounds and of solves asked for."""
    rounds, count, solver = 0, 0, search.rounds()
    points = next(solver)
    while count < solves:
        count, rounds = count + len(points), rounds + 1
        try:
            points = solver.send(solved(points, loss))
        except StopIteration:
            break
    return rounds, count


def descent(loss, start, width=1, **options):
    part = part_at(start, width)
    return BlockDescent(part, start, loss(start), blocks(len(start), width), **options)


def test_a_sphere_is_solved_in_two_cycles():
    loss, minimum, _ = quadratic(SIZE, 1.0)
    start = np.random.default_rng(1).uniform(-2, 2, SIZE)
    search = descent(loss, start)
    drive(search, loss, 2 * SIZE)
    assert search.value < 1e-3 * loss(start)
    assert search.value == loss(search.x)
    drive(search, loss, 3 * SIZE)
    np.testing.assert_allclose(search.x, minimum, atol=1e-3)


def test_the_mean_curvature_is_learnt_from_steps():
    loss, _, curvature = quadratic(SIZE, 10.0)
    search = descent(loss, np.random.default_rng(1).uniform(-2, 2, SIZE))
    drive(search, loss, SIZE)
    assert search._curvature == pytest.approx(curvature, rel=0.15)


def test_five_cycles_do_more_than_five_gradients():
    """Steepest descent with exact gradients and line searches; a gradient costs N solves."""
    loss, minimum, _ = quadratic(SIZE, 100.0)
    start = np.random.default_rng(1).uniform(-2, 2, SIZE)
    search = descent(loss, start)
    drive(search, loss, 5 * SIZE)
    x, hessian = start.copy(), np.zeros((SIZE, SIZE))
    zero = loss(minimum)
    unit = np.eye(SIZE)
    for i in range(SIZE):  # the quadratic's own matrix, by polarisation around its minimum
        hessian[i] = [
            loss(minimum + unit[i] + unit[j]) - loss(minimum + unit[i]) - loss(minimum + unit[j])
            for j in range(SIZE)
        ]
    hessian += zero
    for _ in range(5):
        gradient = hessian @ (x - minimum)
        x = x - gradient * (gradient @ gradient) / (gradient @ hessian @ gradient)
    assert search.value < 0.5 * loss(x)


def test_cycles_are_counted_and_end_the_search():
    loss, _, _ = quadratic(SIZE, 100.0)
    search = descent(loss, np.zeros(SIZE), cycles=2)
    _, solves = drive(search, loss, 10**6)
    assert 2 * SIZE < solves < 2.5 * SIZE
    assert not search.converged
    assert search.noise == 0.0


def test_wide_rounds_take_fewer_of_them():
    loss, _, _ = quadratic(SIZE, 30.0)
    start = np.random.default_rng(1).uniform(-2, 2, SIZE)
    rounds = {}
    for width in (1, 16):
        search = descent(loss, start, width=width)
        solver, rounds[width] = search.rounds(), 0
        points = next(solver)
        while search.value > 0.02 * loss(start):
            assert len(points) <= width
            points = solver.send(solved(points, loss))
            rounds[width] += 1
    assert rounds[16] < rounds[1] / 8


def test_coordinates_at_their_bounds_come_free_again():
    """Starts in a corner; moves along cosines alone are all cut there."""
    loss, minimum, _ = quadratic(SIZE, 10.0)
    search = descent(loss, np.full(SIZE, 3.0))
    drive(search, loss, 12 * SIZE)
    assert search.value < 1e-5 * loss(np.full(SIZE, 3.0))
    np.testing.assert_allclose(search.x, minimum, atol=0.05)


def test_a_minimum_beyond_the_bounds_is_found_on_them():
    target = np.linspace(-6, 6, SIZE)

    def loss(x):
        return 0.5 * float(np.sum((x - target) ** 2))

    search = descent(loss, np.zeros(SIZE))
    drive(search, loss, 12 * SIZE)
    best = loss(np.clip(target, -3, 3))
    assert search.value == pytest.approx(best, rel=1e-3)
    assert np.all(np.abs(search.x) <= 3.0)


def test_failing_solves_are_left_out():
    loss, _, _ = quadratic(SIZE, 10.0)
    rng = np.random.default_rng(5)

    def sometimes(x):
        return None if rng.random() < 0.2 else loss(x)

    start = np.random.default_rng(1).uniform(-2, 2, SIZE)
    search = descent(loss, start)
    drive(search, sometimes, 5 * SIZE)
    assert search.value < 0.05 * loss(start)


@pytest.mark.parametrize("answer", [1.0, None])
def test_a_flat_loss_and_one_that_never_solves_end_the_search(answer):
    search = BlockDescent(part_at(np.zeros(SIZE)), np.zeros(SIZE), 1.0, blocks())
    _, solves = drive(search, lambda x: answer, 10**5)
    assert search.converged
    assert solves < 30 * SIZE


def test_a_flat_loss_of_many_parameters_goes_on_with_other_points():
    problem = zb.Problem(zb.Space(x=zb.Real(-3, 3, (200,))), lambda phi: 1.0)
    result = zb.minimize(problem, zb.TrustRegion(), max_solves=900)
    assert "restart" in {record.role for record in result.history}
    assert all(np.isfinite(record.loss) for record in result.history)


def test_noise_ends_it_before_a_step_and_a_slope_is_not_called_noise():
    loss, _, _ = quadratic(SIZE, 1.0)
    rng = np.random.default_rng(5)
    start = np.full(SIZE, 1.0)
    search = descent(loss, start)
    drive(search, lambda x: loss(x) + 0.01 * rng.standard_normal(), 10**4)
    assert 0.0 < search.noise < 0.1
    np.testing.assert_array_equal(search.x, start)
    steep = descent(lambda x: 1e9 * loss(x), start)
    drive(steep, lambda x: 1e9 * loss(x), 4 * SIZE)
    assert steep.noise == 0.0


def noisy(loss, start, deviation, width=1):
    directions = blocks(len(start), width)
    return NoisyDescent(part_at(start, width), start, loss(start), deviation, directions)


def test_noisy_descent_learns_curvature_and_noise_and_goes_down():
    loss, _, curvature = quadratic(SIZE, 10.0)
    rng = np.random.default_rng(5)
    start = np.random.default_rng(1).uniform(-2, 2, SIZE)
    deviation = 0.005 * loss(start)
    search = noisy(loss, start, 10 * deviation)
    drive(search, lambda x: loss(x) + deviation * rng.standard_normal(), 15 * SIZE)
    assert loss(search.recommended) < 0.1 * loss(start)
    assert search.level == pytest.approx(loss(search.recommended), abs=2 * deviation)
    assert search.noise == pytest.approx(deviation, rel=0.5)
    assert search._curvature == pytest.approx(curvature, rel=0.2)


def test_in_noise_that_hides_everything_it_stands_still():
    """A random walk of steps as long as slopes of noise suggest would end far up."""
    loss, _, _ = quadratic(SIZE, 1.0)
    start = np.random.default_rng(1).uniform(-2, 2, SIZE)
    ends = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        deviation = 10.0 * loss(start)
        search = noisy(loss, start, deviation)
        drive(search, lambda x, r=rng, d=deviation: loss(x) + d * r.standard_normal(), 10 * SIZE)
        ends.append(loss(search.recommended) / loss(start))
    assert np.median(ends) < 1.2


@pytest.mark.parametrize("size", [100, 400])
def test_minimize_solves_a_plain_sphere_of_any_size(size):
    """With one model of 150 directions it used to stand still from there on."""
    loss, _, _ = quadratic(size, 1.0)
    problem = zb.Problem(
        zb.Space(x=zb.Real(-3, 3, (size,))), lambda phi: loss(np.asarray(phi["x"]))
    )
    start = {"x": np.random.default_rng(1).uniform(-2, 2, size)}
    result = zb.minimize(problem, zb.TrustRegion(), max_solves=3 * size, initial=start)
    assert result.loss < 1e-3 * loss(start["x"])
    again = zb.minimize(problem, zb.TrustRegion(), max_solves=3 * size, initial=start)
    assert [r.loss for r in result.history] == [r.loss for r in again.history]


def test_a_smooth_field_that_is_not_declared_keeps_its_model():
    """Its first cosines matter most: blocks of all directions would be slower."""
    weights = np.exp(-np.arange(64) / 4.0)
    modes = np.array(list(cosines(64)()))
    target = 3.0 * weights @ modes

    def loss(phi):
        return float(np.sum((modes @ (np.asarray(phi["x"]) - target)) ** 2 * weights))

    problem = zb.Problem(zb.Space(x=zb.Real(-5, 5, (64,))), loss)
    start = {"x": np.zeros(64)}
    result = zb.minimize(problem, zb.TrustRegion(), max_solves=60, initial=start)
    first = next((r.solve for r in result.history if r.best_loss < 0.01 * loss(start)), math.inf)
    assert first < 45


def test_more_than_a_model_holds_under_noise():
    size = 200
    loss, _, _ = quadratic(size, 1.0)

    def noisy_loss(phi, *, seed):
        x = np.asarray(phi["x"])
        draw = np.random.default_rng([seed, *np.abs(x[:4].view(np.int64))]).standard_normal()
        return loss(x) * math.exp(0.01 * draw)

    problem = zb.Problem(zb.Space(x=zb.Real(-3, 3, (size,))), noisy_loss)
    start = {"x": np.random.default_rng(1).uniform(-2, 2, size)}
    result = zb.minimize(problem, zb.TrustRegion(), max_solves=8 * size, initial=start)
    assert loss(result.phi["x"]) < 0.1 * loss(start["x"])
