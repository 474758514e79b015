"""The numerics under the tasks: converged, conservative, and equal in numpy and torch."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from zo_bilevel.support.errors import InputError
from zo_bilevel.tasks import burgers_pair, heat, ridge, spectral, time_stepping
from zo_bilevel.tasks.quadratic_form import QuadraticForm, make_quadratic_form

SIMULATORS = {
    "burgers": spectral.simulate_burgers,
    "allen_cahn": spectral.simulate_allen_cahn,
    "kdv": spectral.simulate_kdv,
}
NAMES = sorted(SIMULATORS)


def cole_hopf(nu: float, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Burgers from -sin(pi x), exactly: an integral over the line (Basdevant et al. 1986)."""
    y = np.linspace(-4.0, 4.0, 8001)
    distance = x[None, :, None] - y
    exponent = -np.cos(np.pi * y) / (2.0 * np.pi * nu)
    exponent = exponent - distance**2 / (4.0 * nu * t[:, None, None])
    weight = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    return (distance / t[:, None, None] * weight).sum(axis=-1) / weight.sum(axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_halving_grid_and_step_moves_no_observation_by_1e_6(name: str) -> None:
    equation, simulate = spectral.EQUATIONS[name], SIMULATORS[name]
    nu, points, steps = equation.true_nu, equation.num_points, equation.num_steps
    base = simulate(nu)
    assert base.shape == (64,)
    assert np.array_equal(base, simulate(nu, num_points=points, num_steps=steps))
    assert np.abs(base - simulate(nu, num_points=2 * points, num_steps=2 * steps)).max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_time_stepping_is_of_fourth_order(name: str) -> None:
    def simulate(num_steps: int) -> np.ndarray:
        # Smoother than at the truth, except KdV, where the truth is smooth on 256 points.
        nu = (1.0 if name == "kdv" else 4.0) * spectral.EQUATIONS[name].true_nu
        return SIMULATORS[name](nu, num_points=256, num_steps=num_steps)

    truth = simulate(1024)
    coarse, fine = (np.abs(simulate(steps) - truth).max() for steps in (128, 256))
    assert 10.0 < coarse / fine < 30.0


def test_burgers_agrees_with_the_cole_hopf_formula() -> None:
    nu = spectral.EQUATIONS["burgers"].true_nu
    exact = cole_hopf(nu, spectral.OBSERVED_POSITIONS, spectral.OBSERVED_TIMES).ravel()
    assert np.abs(spectral.simulate_burgers(nu) - exact).max() < 3e-7
    assert np.abs(spectral.observations("burgers") - exact).max() < 2e-9


def test_unresolved_burgers_stays_near_the_exact_solution() -> None:
    exact = cole_hopf(1e-3, spectral.OBSERVED_POSITIONS, spectral.OBSERVED_TIMES).ravel()
    assert np.abs(spectral.simulate_burgers(1e-3) - exact).max() < 3e-3


def test_kdv_follows_the_soliton_of_its_speed() -> None:
    # u = a + 3 c sech^2((x - (a + c) t) sqrt(c / (4 nu))), with tails below 1e-9 at the ends.
    nu, c, mean = 0.0025, 1.2, 0.3
    x, k = time_stepping.grid(256)

    def soliton(t: float) -> torch.Tensor:
        shifted = torch.remainder(x - (mean + c) * t + 1.0, 2.0) - 1.0
        return mean + 3.0 * c / torch.cosh(shifted * math.sqrt(c / (4.0 * nu))) ** 2

    field = time_stepping.integrate(
        soliton(0.0),
        1j * nu * k**3,
        -0.5j * k,
        torch.square,
        cutoff=2 / 3,
        num_steps=1024,
        num_times=2,
    )
    assert (field[1] - soliton(1.0)).abs().max() < 2e-4


@pytest.mark.parametrize("name", NAMES)
def test_solver_is_finite_over_the_wide_range(name: str) -> None:
    lowest, highest = {"burgers": (1e-4, 10.0), "allen_cahn": (1e-5, 0.1), "kdv": (1e-5, 0.01)}[
        name
    ]
    theta = SIMULATORS[name](np.geomspace(lowest, highest, 12))
    assert theta.shape == (12, 64)
    assert np.abs(theta).max() < 3.0


@pytest.mark.parametrize("name", NAMES)
def test_batch_equals_one_by_one_and_torch_equals_numpy(name: str) -> None:
    nu = spectral.EQUATIONS[name].true_nu * np.array([[0.7, 1.0, 2.0]])
    batch = SIMULATORS[name](nu)
    single = np.stack([SIMULATORS[name](value) for value in nu[0]])[None]
    tensor = spectral.observe(spectral.simulate_tensor(name, torch.tensor(nu))).numpy()
    assert np.abs(batch - single).max() < 1e-12
    assert np.abs(batch - tensor).max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_torch_derivative_matches_a_central_difference(name: str) -> None:
    simulate = SIMULATORS[name]
    nu, options = spectral.EQUATIONS[name].true_nu, {"num_points": 128, "num_steps": 192}

    def total(log_nu: torch.Tensor) -> torch.Tensor:
        field = spectral.simulate_tensor(name, torch.exp(log_nu), num_points=128, num_steps=192)
        return spectral.observe(field).square().sum()

    # A smooth solution, as 128 points ask for.
    log_nu = torch.tensor(math.log(8.0 * nu), dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(total(log_nu), log_nu)
    above, below = (
        np.square(simulate(8.0 * nu * math.exp(shift), **options)).sum() for shift in (1e-4, -1e-4)
    )
    assert derivative.item() == pytest.approx((above - below) / 2e-4, rel=1e-5)


@pytest.mark.parametrize("name", ["burgers", "kdv"])
def test_mean_is_conserved(name: str) -> None:
    x, k = time_stepping.grid(256)
    equation = spectral.EQUATIONS[name]
    nu = torch.tensor([0.02], dtype=torch.float64)
    field = time_stepping.integrate(
        0.4 + equation.initial(x),
        equation.symbol(k, nu),
        equation.factor * 1j * k,
        equation.flux,
        cutoff=equation.cutoff,
        num_steps=256,
        num_times=8,
    )
    assert (field.mean(dim=-1) - 0.4).abs().max() < 1e-12


def test_kdv_conserves_energy_and_allen_cahn_its_bound() -> None:
    kdv = spectral.full_field("kdv", 0.0025)
    energy = np.square(kdv).mean(axis=-1)
    assert np.abs(energy - 0.5).max() < 1e-6
    assert np.abs(spectral.full_field("allen_cahn", 0.001)).max() < 1.001


def test_full_field_holds_the_observations_and_reports_the_error_of_nu() -> None:
    field = spectral.full_field("allen_cahn", 0.001)
    assert field.shape == (512, 256)
    columns = np.searchsorted(spectral.FIELD_POSITIONS, spectral.OBSERVED_POSITIONS)
    rows = np.searchsorted(spectral.FIELD_TIMES, spectral.OBSERVED_TIMES)
    observed = field[np.ix_(rows, columns)].ravel()
    assert np.abs(observed - spectral.observations("allen_cahn")).max() < 1e-6
    assert spectral.relative_error("allen_cahn", 0.001) < 2e-5
    # The paper: 2.34 % of nu gives 0.97e-3.
    assert spectral.relative_error("allen_cahn", 0.0010234) == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_discretisation_shifts_nu_far_less_than_the_published_error(name: str) -> None:
    nu, simulate = spectral.EQUATIONS[name].true_nu, SIMULATORS[name]
    below, base, above = simulate(nu * np.array([0.999, 1.0, 1.001]))
    slope = (above - below) / 0.002
    shift = slope @ (spectral.observations(name) - base) / (slope @ slope)
    assert abs(shift) < 1e-5  # the paper's errors are 0.7e-2 to 2.3e-2


def test_spectral_names_what_is_wrong() -> None:
    with pytest.raises(InputError, match=r"nu must be > 0, got -0\.1"):
        spectral.simulate_kdv(-0.1)
    with pytest.raises(InputError, match=r"name must be one of .*, got 'heat'"):
        spectral.simulate_tensor("heat", torch.tensor(1.0))
    with pytest.raises(InputError, match="num_steps must be a multiple of 8, got 12"):
        spectral.simulate_kdv(0.01, num_steps=12)
    with pytest.raises(InputError, match="num_points must be a multiple of 32, got 100"):
        spectral.simulate_kdv(0.01, num_points=100)


@pytest.mark.parametrize("log_conductivity", [0.0, -1.5])
def test_heat_matches_the_analytic_solution_for_constant_conductivity(
    log_conductivity: float,
) -> None:
    def worst_error(num_cells: int) -> float:
        x, k = np.arange(1, num_cells) / num_cells, math.exp(log_conductivity)
        frequency, rate = 3.0 * np.pi, math.sqrt(20.0 / k)
        wave = x * (1.0 - x) / 2.0 + np.sin(frequency * x) / frequency**2
        ramp = (x - x**3) / 6.0
        plateau = 1.0 - np.cosh(rate * (x - 0.5)) / math.cosh(rate / 2.0)
        reacting = plateau / 20.0 + np.sin(frequency * x) / (k * frequency**2 + 20.0)
        exact = 10.0 * np.concatenate([wave / k, ramp / k, reacting])
        theta = heat.simulate(np.full(num_cells, log_conductivity))
        assert theta.shape == exact.shape
        return float(np.abs(theta - exact).max())

    coarse, fine = worst_error(64), worst_error(128)
    assert fine < 5e-3
    assert coarse / fine == pytest.approx(4.0, rel=0.05)  # second order


@pytest.mark.parametrize("num_cells", [3, 4, 33, 64, 1024])
def test_heat_torch_batch_equals_numpy(num_cells: int) -> None:
    fields = np.random.default_rng(0).normal(size=(2, 3, num_cells))
    fields[0, 0] = 9.0  # beyond the clip
    batch = heat.simulate_tensor(torch.tensor(fields)).numpy()
    for index in np.ndindex(2, 3):
        theta = heat.simulate(fields[index])
        assert np.abs(batch[index] - theta).max() < 1e-10 * np.abs(theta).max()


def test_heat_rows_balance_with_a_random_field() -> None:
    phi = np.random.default_rng(1).normal(size=16)
    k, u = 256.0 * np.exp(phi), np.pad(heat.simulate(phi)[15:30] / 10.0, 1)
    flux = k * np.diff(u)
    assert np.allclose(-np.diff(flux), np.arange(1, 16) / 16.0, rtol=1e-11)


def test_heat_gradient_is_exact() -> None:
    phi = torch.tensor(heat.true_field(6), requires_grad=True)
    assert torch.autograd.gradcheck(heat.simulate_tensor, (phi,))


def test_heat_rejects_wrong_shapes() -> None:
    with pytest.raises(InputError, match="num_cells must be a whole number >= 3, got 2"):
        heat.simulate(np.zeros(2))
    with pytest.raises(InputError, match=r"got \(2, 8\)"):
        heat.simulate(np.zeros((2, 8)))


def test_ridge_dual_equals_primal_and_torch_batch() -> None:
    data = ridge.ridge_data()
    fields = np.random.default_rng(0).normal(size=(3, 300))
    fields[0, 0] = -20.0  # beyond the clip
    batch = ridge.simulate_tensor(torch.tensor(fields)).numpy()
    for phi, theta in zip(fields, batch, strict=True):
        penalty = np.diag(np.exp(np.clip(phi, -8.0, 8.0)))
        normal = data.inputs.T @ data.inputs + penalty
        weights = np.linalg.solve(normal, data.inputs.T @ data.outputs)
        assert np.allclose(ridge.fit_weights(phi), weights, rtol=1e-8, atol=1e-9)
        assert np.allclose(ridge.simulate(phi), theta, rtol=1e-12, atol=1e-11)


def test_ridge_weights_are_stationary_and_data_fixed() -> None:
    data, phi = ridge.ridge_data(), np.full(300, 0.5)
    weights = ridge.fit_weights(phi)
    residual = data.outputs - data.inputs @ weights
    assert np.allclose(data.inputs.T @ residual, np.exp(phi) * weights, atol=1e-9)
    assert np.count_nonzero(data.true_weights) == 20
    assert np.std(ridge.target() - data.validation_inputs @ data.true_weights) < 0.6
    with pytest.raises(InputError, match=r"300 entries, got shape \(4,\)"):
        ridge.simulate(np.zeros(4))


def test_burgers_two_converges_and_batches() -> None:
    truth = np.array(burgers_pair.TRUE_PHI)
    assert np.array_equal(burgers_pair.simulate(truth), burgers_pair.target())
    assert np.abs(burgers_pair.target() - burgers_pair.target(refinement=2)).max() < 1e-6
    batch = burgers_pair.simulate(np.array([truth, burgers_pair.START_PHI]))
    assert batch.shape == (2, 1280)
    assert np.abs(batch[0] - burgers_pair.target()).max() < 1e-12
    assert np.abs(batch[1] - burgers_pair.simulate(np.array(burgers_pair.START_PHI))).max() < 1e-12


def test_burgers_two_scales_like_burgers() -> None:
    # lam u solves Burgers' equation with the same nu and initial values times lam.
    x = -1.0 + np.arange(128) / 64.0
    exact = cole_hopf(0.03, x, np.arange(1, 11) / 10.0)
    assert np.abs(burgers_pair.target().reshape(10, 128) - exact).max() < 1e-5
    linear = burgers_pair.simulate(np.array([0.0, math.log(0.03)])).reshape(10, 128)
    decay = np.exp(-0.03 * np.pi**2 * np.arange(1, 11) / 10.0)[:, None]
    assert np.abs(linear + decay * np.sin(np.pi * x)).max() < 1e-12


@pytest.mark.parametrize(
    ("num_parameters", "options"),
    [(4, {}), (6, {"num_outputs": 9, "curvature": 0.7}), (5, {"penalty": 0.3, "condition": 1e3})],
)
def test_quadratic_hypergradient_equals_autograd(
    num_parameters: int, options: dict[str, float]
) -> None:
    form = make_quadratic_form(num_parameters, seed=3, **options)  # type: ignore[arg-type]
    linear, curving = torch.tensor(form.linear), torch.tensor(form.curving)
    offset, target = torch.tensor(form.offset), torch.tensor(form.target)

    def loss(phi: torch.Tensor) -> torch.Tensor:
        theta = linear @ phi + offset + 0.5 * form.curvature * (curving @ phi) ** 2
        return 0.5 * ((theta - target).square().sum() + form.penalty * phi.square().sum())

    start = np.random.default_rng(0).normal(size=(2, num_parameters))
    for phi, value, gradient in zip(
        start, form.loss(start), form.hypergradient(start), strict=True
    ):
        leaf = torch.tensor(phi, requires_grad=True)
        (expected,) = torch.autograd.grad(loss(leaf), leaf)
        assert np.allclose(gradient, expected.numpy(), rtol=1e-12, atol=1e-12)
        assert value == pytest.approx(loss(leaf).item(), rel=1e-12)
    minimum = form.minimum()
    assert np.abs(form.hypergradient(minimum)).max() < 1e-12
    assert form.loss(minimum) <= form.loss(start).min()


def test_quadratic_difference_error_has_its_closed_form() -> None:
    form = make_quadratic_form(5, seed=0, curvature=2.0)
    generator = np.random.default_rng(1)
    phi, direction, radius = generator.normal(size=5), generator.normal(size=5), 0.1
    exact = form.jacobian_product(phi, direction)
    above = form.solution(phi + radius * direction)
    forward = (above - form.solution(phi)) / radius
    central = (above - form.solution(phi - radius * direction)) / (2.0 * radius)
    assert np.allclose(forward - exact, form.forward_difference_error(direction, radius))
    assert np.allclose(central, exact, rtol=1e-12)


def test_quadratic_has_the_condition_asked_for_and_repeats() -> None:
    form = make_quadratic_form(40, seed=5, num_outputs=50, condition=1e4)
    values = np.linalg.svd(form.linear, compute_uv=False)
    assert values[0] == pytest.approx(1.0)
    assert np.allclose(values[:-1] / values[1:], 1e4 ** (1 / 39))
    again = make_quadratic_form(40, seed=5, num_outputs=50, condition=1e4)
    assert np.array_equal(form.target, again.target)
    assert not np.array_equal(form.target, make_quadratic_form(40, seed=6, num_outputs=50).target)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_quadratic_form(0, seed=0),
            "num_parameters must be a whole",
        ),
        (
            lambda: make_quadratic_form(3, seed=0, num_outputs=2),
            "num_outputs must be a whole number >= 3",
        ),
        (lambda: make_quadratic_form(3, seed=0, condition=0.5), "condition must be >= 1, got 0.5"),
        (lambda: make_quadratic_form(3, seed=0, penalty=-1.0), "penalty must be >= 0, got -1.0"),
        (
            lambda: make_quadratic_form(3, seed=0, penalty=1.0, curvature=1.0).minimum(),
            "only if curvature or penalty is 0, got curvature=1.0, penalty=1.0",
        ),
    ],
)
def test_quadratic_names_what_is_wrong(make: Callable[[], QuadraticForm], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
