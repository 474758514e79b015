"""doctor: what a handful of solves tell."""

import threading

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.run.doctor import difference_table_noise, doctor

SPACE = zb.Space(a=zb.Real(-2, 2), b=zb.Log(0.1, 10))
TIMES = np.linspace(0, 1, 50)


def smooth(phi):
    return np.exp(-phi["a"] * TIMES) + phi["b"] * TIMES


def problem(inner):
    return zb.Problem(SPACE, inner, zb.SquaredError(np.zeros(50)))


def test_a_clean_solver_gets_a_clean_bill():
    found = doctor(problem(smooth))
    assert found.deterministic
    assert found.picklable
    assert not found.takes_seed
    assert not found.varies_with_seed
    assert found.noise < 1e-12
    assert found.radius == 1e-5
    assert found.difference == "forward"
    assert found.num_directions == 2
    assert found.is_vector
    assert found.solves == 10
    assert "it is deterministic" in str(found)


def test_a_solver_that_begins_where_it_ended_is_not_deterministic():
    kept = [np.zeros(50)]

    def warm(phi):  # one step of an iteration a solve
        kept[0] = 0.5 * (kept[0] + smooth(phi))
        return kept[0]

    found = doctor(problem(warm))
    assert not found.deterministic
    assert "remembers earlier solves" in str(found)
    assert found.solves == 10


@pytest.mark.parametrize("level", [1e-3, 1e-2])
def test_noise_is_measured_and_sets_the_radius(level):
    spread = np.std(smooth({"a": 0.0, "b": 1.0}))

    def noisy(phi, seed):
        rng = np.random.default_rng([seed, int(1e9 * (phi["a"] + 2))])
        return smooth(phi) + level * spread * rng.normal(size=50)

    found = doctor(problem(noisy))
    assert found.deterministic
    assert found.varies_with_seed
    assert level / 1.5 < found.noise < level * 1.5
    assert found.radius > 0.04
    assert found.difference == "central"


def test_noise_without_a_seed_is_told_apart():
    rng = np.random.default_rng(0)
    found = doctor(problem(lambda phi: smooth(phi) + 1e-3 * rng.normal(size=50)))
    assert not found.deterministic
    assert "noise of its own" in str(found)


def test_round_off_of_a_single_precision_solver_is_seen_in_the_difference_table():
    found = doctor(problem(lambda phi: smooth(phi).astype(np.float32)))
    assert found.deterministic
    assert 1e-9 < found.noise < 1e-6
    assert found.radius > 5e-5


def test_an_unpicklable_part_is_named():
    lock = threading.Lock()

    def locked(phi):
        with lock:
            return smooth(phi)

    found = doctor(problem(locked))
    assert not found.picklable
    assert "lock" in str(found)
    assert "use threads" in str(found)


def test_batched_solvers_are_recognised_and_checked():
    class Batch:
        def __call__(self, phi):
            return smooth(phi)

        def solve_batch(self, phis):
            return np.exp(-phis["a"][:, None] * TIMES) + phis["b"][:, None] * TIMES

    class Wrong(Batch):
        def solve_batch(self, phis):
            return 2.0 * super().solve_batch(phis)

    assert doctor(problem(Batch())).batchable
    assert not doctor(problem(Wrong())).batchable


def test_a_solver_that_never_works_says_so():
    def broken(phi):
        raise RuntimeError("no licence")

    with pytest.raises(zb.InnerSolverError, match="no licence"):
        doctor(problem(broken))


@pytest.mark.statistical
@pytest.mark.parametrize("sigma", [1e-9, 1e-5, 1e-2])
def test_difference_table_measures_noise_of_any_size(sigma):
    rng = np.random.default_rng(1)
    x = np.linspace(0, 1e-7, 7)[:, None]
    values = np.cos(3 * x + np.arange(500)) + sigma * rng.normal(size=(7, 500))
    found = difference_table_noise(values)
    assert found == pytest.approx(sigma, rel=0.2)
    assert difference_table_noise(np.cos(x * 1e5 + np.arange(500))) < 0.05


def test_a_doctor_tries_another_start_where_the_first_one_fails():
    def early(phi):
        values = 1 - phi["k"] * np.linspace(0, 1, 20)
        return values[values > 0.2]

    space = zb.Space(k=zb.Real(0, 3))
    problem = zb.Problem(space, early, zb.SquaredError(np.ones(20)))
    found = zb.doctor(problem, initial={"k": 1.5})
    assert found.failures >= 3
    assert "returned shape (11,), but the target of SquaredError has shape (20,)" in found.errors[0]


@pytest.mark.parametrize(("digits", "grain"), [(6, 0.0), (2, 1e-2), (1, 1e-1)])
def test_parameters_that_are_rounded_inside_the_solver_are_seen(digits, grain):
    space = zb.Space(a=zb.Real(0, 5), b=zb.Real(0, 5))

    def coarse(phi):
        return np.array([round(phi["a"], digits), round(phi["b"], digits) ** 2])

    found = zb.doctor(zb.Problem(space, coarse, zb.SquaredError([1.0, 1.0])))
    assert found.grain == grain
    assert ("steps below" in str(found)) == (grain > 0)
    assert found.radius >= 4 * grain


def test_parameters_without_effect_are_seen():
    space = zb.Space(a=zb.Real(0, 5))
    found = zb.doctor(zb.Problem(space, lambda phi: np.ones(3), zb.SquaredError(np.zeros(3))))
    assert "no step of all parameters together changed the inner solution" in str(found)
