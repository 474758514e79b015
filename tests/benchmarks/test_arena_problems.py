"""The arena's problems against published starts, minima, certified values and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from benchmarks.arena import fields, large, more_wild, nist, simulators, waves
from benchmarks.arena.best import smallest_loss
from benchmarks.arena.catalogue import GROUPS, all_problems, chosen, problem_named
from benchmarks.arena.problem import Noise
from benchmarks.arena.variants import with_noise
from zo_bilevel.tasks import spectral

# sums of squares at the 53 starts, as printed in BenDFO's testout.dat
STARTS = (
    72.0, 1125.0, 11654200.0, 1168590000.0, 4989200.0, 500936000.0, 24.2,
    1795770.0, 2500.0, 10600.0, 215.0, 1615400.0, 400.5, 154575000.0,
    41.6817, 1306.23, 0.00531317, 1693610000.0, 16.4308, 2323370.0, 26.9042,
    8158880.0, 73.6782, 20593800.0, 1031.15, 4171.31, 7926690.0, 308106000000.0,
    0.0464282, 0.0337706, 0.0386177, 0.028883, 0.0337633, 0.0267406, 273.248,
    16.1741, 2.09342, 199.685, 904.0, 1356.0, 1582.0, 1808.0,
    56.5, 70.5625, 98.6875, 2539080000.0, 6873800000000.0, 3367960000.0, 3735130000.0,
    3991070000.0, 11300100000000.0, 9.38567, 33658200000.0,
)  # fmt: skip


def sum_of_squares(problem, x):
    return float(np.sum((problem.theta(np.asarray(x, dtype=float)) - problem.target) ** 2))


def test_all_53_starts_have_the_published_sums_of_squares():
    problems = more_wild.more_wild_problems()
    found = [sum_of_squares(problem, problem.start) for problem in problems]
    np.testing.assert_allclose(found, STARTS, rtol=5e-6)


@pytest.mark.parametrize("file", sorted(nist.FOLDER.glob("*.dat")), ids=lambda file: file.stem)
def test_certified_values_give_the_certified_sum_of_squares(file):
    known = nist.read_certified(file)
    residuals = nist.MODELS[file.stem](known.predictor, known.values) - known.response
    # the certified digits of Lanczos1's parameters allow no less than 1e-20
    assert float(residuals @ residuals) == pytest.approx(known.smallest, rel=1e-8, abs=1e-20)
    assert known.starts.shape == (2, known.values.size)


def test_certified_deviations_are_read_beside_the_values():
    known = nist.read_certified(nist.FOLDER / "Misra1a.dat")
    np.testing.assert_array_equal(known.starts, [[500, 1e-4], [250, 5e-4]])
    np.testing.assert_array_equal(known.deviations, [2.7070075241e00, 7.2668688436e-06])


def test_all_27_sets_from_two_starts_lie_with_their_minimum_inside_the_box():
    problems = nist.nist_problems()
    assert len(problems) == 54
    for problem in problems:
        assert (problem.lower < problem.truth).all()
        assert (problem.truth < problem.upper).all()


ROOTS = {
    "extended-rosenbrock": np.ones(100),
    "chained-rosenbrock": np.ones(50),
    "extended-powell": np.zeros(80),
    "variably-dimensioned": np.ones(60),
    "trigonometric": np.zeros(50),
    "brown-almost-linear": np.ones(50),
    "extended-freudenstein-roth": np.tile([5.0, 4.0], 30),
}


@pytest.mark.parametrize("name", ROOTS)
def test_large_systems_vanish_at_their_printed_roots(name):
    (problem,) = [p for p in large.large_problems() if p.name.startswith(f"large/{name}-n")]
    assert sum_of_squares(problem, ROOTS[name]) == 0.0


@pytest.mark.parametrize(
    "name",
    [
        "broyden-tridiagonal",
        "broyden-banded",
        "discrete-boundary-value",
        "discrete-integral",
        "chandrasekhar",
        "bratu",
    ],
)
def test_large_systems_without_a_printed_root_have_one(name):
    (problem,) = [p for p in large.large_problems() if p.name.startswith(f"large/{name}-n")]
    root = optimize.least_squares(problem.theta, problem.start, xtol=1e-15, gtol=1e-15).x
    assert sum_of_squares(problem, root) < 1e-18


def test_penalty_function_has_the_printed_minimum():
    found = optimize.least_squares(large.penalty_one, np.arange(1.0, 11), xtol=1e-15, ftol=1e-15)
    assert 2 * found.cost == pytest.approx(7.08765e-5, rel=1e-6)  # More, Garbow, Hillstrom: n = 10


def test_broyden_banded_is_the_printed_sum():
    x = np.random.default_rng(0).normal(size=12)
    expected = [
        x[i] * (2 + 5 * x[i] ** 2)
        + 1
        - sum(x[j] * (1 + x[j]) for j in range(max(0, i - 5), min(12, i + 2)) if j != i)
        for i in range(12)
    ]
    np.testing.assert_allclose(large.broyden_banded(x), expected, rtol=1e-13)


def test_discrete_integral_and_boundary_value_have_the_same_root():
    """Both discretise u'' = (u + t + 1)^3 / 2 with u(0) = u(1) = 0 (problems 28 and 29)."""
    t = np.arange(1, 41) / 41
    (by_integral, by_differences) = (
        optimize.root(model, t * (t - 1)).x
        for model in (large.discrete_integral, large.PROBLEMS["discrete-boundary-value"].residuals)
    )
    np.testing.assert_allclose(by_integral, by_differences, atol=1e-4)


def test_known_minima_agree_with_published_ones():
    for problem in all_problems():
        if problem.noise is None and problem.smallest and problem.outer is None:
            found = smallest_loss(problem) * problem.target.size
            assert found == pytest.approx(problem.smallest, rel=2e-5), problem.name


def test_every_problem_has_a_known_minimum_below_its_start():
    for problem in all_problems():
        assert smallest_loss(problem) < problem.true_loss(problem.start), problem.name


def test_no_function_is_in_both_halves_and_both_have_their_share_of_every_group():
    tune, held = chosen("tune"), chosen("held")
    assert not {p.base for p in tune} & {p.base for p in held}
    assert len(tune) + len(held) == len(all_problems()) == len({p.name for p in all_problems()})
    for group in GROUPS:
        counts = [sum(p.group == group for p in half) for half in (tune, held)]
        assert min(counts) >= 0.3 * sum(counts), (group, counts)
    assert problem_named("nist/MGH10-start1").base == problem_named("more-wild/10-meyer-n3").base


def test_unknown_groups_are_named():
    with pytest.raises(ValueError, match=r"groups must be among more-wild.*, got nits"):
        chosen("tune", ["nits"])


def test_variants_are_counted_by_the_minimum_of_their_root():
    for problem in all_problems():
        if problem.noise is not None or problem.group == "wide":
            plain = problem_named("/".join(problem.name.split("/")[:2]))
            assert smallest_loss(problem) == smallest_loss(plain)
            assert problem.half == plain.half


@pytest.mark.parametrize("level", [1e-4, 1e-2])
def test_additive_noise_is_a_share_of_the_starts_root_mean_square(level):
    problem = problem_named("more-wild/18-osborne-two-n11")
    noisy = with_noise(problem, Noise("additive", level))
    theta, spoil = noisy.theta(noisy.start), noisy.spoiler(0)
    away = np.concatenate([spoil(theta) - theta for _ in range(200)])
    assert away.std() == pytest.approx(level * np.sqrt(np.mean(theta**2)), rel=0.03)
    assert noisy.true_loss(noisy.start) == problem.true_loss(problem.start)


def test_proportional_noise_follows_each_number():
    noisy = with_noise(problem_named("nist/Thurber-start1"), Noise("proportional", 1e-3))
    theta, spoil = noisy.theta(noisy.start), noisy.spoiler(0)
    away = np.stack([spoil(theta) / theta - 1 for _ in range(200)])
    assert away.std() == pytest.approx(1e-3, rel=0.03)


def test_step_noise_rounds_and_repeats():
    noisy = with_noise(problem_named("nist/Misra1a-start1"), Noise("step", 1e-2))
    theta, spoil = noisy.theta(noisy.start), noisy.spoiler(0)
    unit = 1e-2 * np.sqrt(np.mean((theta - noisy.target) ** 2))
    np.testing.assert_array_equal(spoil(theta), spoil(theta))
    assert np.abs(spoil(theta) - theta).max() <= unit / 2 * (1 + 1e-12)
    np.testing.assert_allclose(spoil(theta) / unit, np.round(spoil(theta) / unit), rtol=1e-12)


def test_noise_is_the_seeds():
    noisy = with_noise(problem_named("nist/Misra1a-start1"), Noise("additive", 1e-2))
    theta = noisy.theta(noisy.start)
    np.testing.assert_array_equal(noisy.spoiler(3)(theta), noisy.spoiler(3)(theta))
    assert not np.array_equal(noisy.spoiler(3)(theta), noisy.spoiler(4)(theta))


@pytest.mark.parametrize("name", simulators.ROWS)
def test_simulators_fit_their_data_at_the_truth(name):
    problem = problem_named(f"simulators/{name}-start1")
    row = simulators.ROWS[name]
    share = problem.true_loss(problem.truth) / problem.model(problem.truth).var()
    assert share == pytest.approx(row.error**2, rel=0.6)  # a variance of 15 to 80 numbers
    assert problem.true_loss(problem.start) > 10 * problem.true_loss(problem.truth)


def test_beam_bends_as_its_closed_form():
    tip = simulators.beam(np.full(9, np.log(2.0)))[8]
    assert tip == pytest.approx(1 / (3 * 2.0), rel=1e-9)  # P L^3 / (3 E I)


def test_kinetics_keep_their_atoms_and_end_in_balance():
    path = simulators.kinetics(np.zeros(12)).reshape(12, 7)
    np.testing.assert_allclose(path.sum(axis=1), 1, atol=1e-7)
    np.testing.assert_allclose(path[-1, 0], path[-1, 1], rtol=0.05)


def test_two_compartments_without_exchange_are_the_bateman_function():
    ka, ke, volume, t = 1.5, 0.2, 8.0, 2.0
    found = simulators.pharmacokinetics(np.log([ka, ke, 1e-9, 1.0, volume]))[5]
    expected = 10 * ka / (volume * (ka - ke)) * (np.exp(-ke * t) - np.exp(-ka * t))
    assert found == pytest.approx(expected, rel=1e-6)


def test_quarter_wave_film_reflects_as_printed():
    """A film of index sqrt(1.52) and a quarter wave thick takes the reflex of glass away."""
    film = np.sqrt(1.52)
    reflected = simulators.thin_film(np.array([film, 1.52, 0.6 / (4 * film), 0.3]))
    near = np.abs(np.linspace(0.4, 0.8, 40) - 0.6).argmin()
    assert reflected[near] < 1e-4
    bare = simulators.thin_film(np.array([1.52, 1.52, 0.1, 0.1]))
    np.testing.assert_allclose(bare, (0.52 / 2.52) ** 2, rtol=1e-12)


def test_kdv_is_the_projects_where_the_coarse_grid_resolves_it():
    coarse, fine = waves.kdv(np.log([0.01])), spectral.simulate_kdv(0.01)
    np.testing.assert_allclose(coarse, fine, atol=3e-4)


def test_burgers_is_the_projects_where_the_coarse_grid_resolves_it():
    coarse, fine = waves.burgers(np.array([1.0, np.log(0.05)])), spectral.simulate_burgers(0.05)
    np.testing.assert_allclose(coarse, fine, atol=1e-3)


def test_uniform_ground_looks_as_resistive_as_it_is():
    np.testing.assert_allclose(fields.sounding(np.full(40, 0.7)), 0.7, rtol=1e-12)


def test_rays_through_uniform_ground_take_their_length():
    times = fields.tomography(np.zeros(64)).reshape(8, 8)
    heights = (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(times, 10 * np.hypot(1, heights - heights[:, None]), rtol=1e-12)


def test_waves_arrive_when_their_speed_says():
    seen = fields.wave_speed(np.zeros(128)).reshape(50, 2, 6)
    steps = 8 * np.arange(1, 51)
    away = np.abs(seen[:, 0, 3])  # from cell 8 to cell 75, a quarter of a cell a step
    assert away[steps < 4 * 67 - 16].max() < 1e-3 * away.max()
    assert away[(steps > 4 * 67) & (steps < 4 * 67 + 80)].max() > 0.5 * away.max()


def test_heads_fall_where_more_water_flows_out():
    heads = fields.darcy(np.zeros(100))
    np.testing.assert_allclose(fields.darcy(np.full(100, np.log(2.0))), heads / 2, rtol=1e-10)


def test_deeper_basins_pull_less_at_the_surface_but_more_in_all():
    shallow, deep = fields.basin(np.zeros(40)), fields.basin(np.full(40, 0.5))
    assert (deep > shallow).all()
