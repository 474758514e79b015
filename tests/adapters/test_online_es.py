"""OnlineES: persistent and reused noise against closed forms; truncated windows are biased."""

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import OnlineES, TorchUnroll

RATE, TARGET, STEPS, WINDOW = 0.3, 1.0, 6, 2
SPACE = zb.Space(a=zb.Real(-6, 6, shape=(2,)))  # a sixth of a range is 2
PHI, WEIGHTS = np.array([0.5, -0.7]), np.array([1.0, 3.0])


def step(w, phi, t, batch):
    return w + RATE * (phi["a"] - w)


def loop_of(num_steps=STEPS, step=step):
    return TorchUnroll(
        lambda phi: torch.zeros(2, dtype=torch.float64), step, num_steps, dtype=torch.float64
    )


def loss(w, phi):
    return ((w - TARGET) ** 2 * torch.from_numpy(WEIGHTS)).sum()


def closed_form(is_truncated=False):
    """Of the mean loss: `w_t = c_t a` with `c_t = 1 - (1 - rate)^t`; truncated, only a window's."""
    total = np.zeros(2)
    for t in range(1, STEPS + 1):
        reach = 1 - (1 - RATE) ** t
        seen = 1 - (1 - RATE) ** ((t - 1) % WINDOW + 1) if is_truncated else reach
        total += 2 * WEIGHTS * (reach * PHI - TARGET) * seen
    return total / STEPS


@pytest.fixture(scope="module")
def draws():
    found = {}
    for noise in ("persistent", "reused", "truncated"):
        es = OnlineES(loop_of(), loss, SPACE, noise=noise, window=WINDOW, num_pairs=4, radius=0.3)
        found[noise] = np.array([es.gradient({"a": PHI}).gradient["a"] for _ in range(180)])
    return found


def standard_errors(found, exact):
    """How many, with windows of one loop taken together: their noise is the same."""
    loops = found.reshape(-1, STEPS // WINDOW, 2).mean(axis=1)
    return np.abs(loops.mean(axis=0) - exact) / (loops.std(axis=0, ddof=1) / np.sqrt(len(loops)))


@pytest.mark.parametrize("noise", ["persistent", "reused"])
@pytest.mark.parametrize("at", [[6.0, -6.0], [5.8, -5.8]])
def test_at_a_bound_the_hypergradient_is_whole(noise, at):
    """Noise that was cut there kept its weight: half of the hypergradient was left."""

    def linear(w, phi):
        return w @ torch.from_numpy(WEIGHTS)

    es = OnlineES(loop_of(), linear, SPACE, noise=noise, window=STEPS, num_pairs=60, radius=0.3)
    found = es.gradient({"a": at})
    exact = WEIGHTS * np.mean([1 - (1 - RATE) ** t for t in range(1, STEPS + 1)])
    assert (np.abs(found.gradient["a"] - exact) < 4 * found.error["a"]).all()
    assert (np.abs(0.5 * found.gradient["a"] - exact) > 4 * 0.5 * found.error["a"]).any()


@pytest.mark.statistical
@pytest.mark.parametrize("noise", ["persistent", "reused"])
def test_it_is_unbiased_and_a_wrong_factor_is_seen(draws, noise):
    assert standard_errors(draws[noise], closed_form()).max() < 4.0
    assert standard_errors(2.0 * draws[noise], closed_form()).max() > 4.0


@pytest.mark.statistical
def test_truncated_windows_are_biased_by_what_they_do_not_see(draws):
    assert standard_errors(draws["truncated"], closed_form()).max() > 8.0
    assert standard_errors(draws["truncated"], closed_form(is_truncated=True)).max() < 4.0


@pytest.mark.statistical
def test_reused_noise_varies_less_where_losses_hang_together():
    """Over ten windows; over three, two seeds of three tell nothing."""
    spread = {}
    for noise in ("persistent", "reused"):
        es = OnlineES(loop_of(20), loss, SPACE, noise=noise, window=WINDOW, num_pairs=4, radius=0.3)
        found = [es.gradient({"a": PHI}).gradient["a"] for _ in range(100)]
        spread[noise] = np.std(found, axis=0)
    assert (spread["reused"] < 0.9 * spread["persistent"]).all()


@pytest.mark.statistical
@pytest.mark.parametrize("noise", ["persistent", "reused", "truncated"])
def test_the_error_is_the_spread_of_gradients(noise):
    """Also where slopes grow along the loop, and pairs are few."""

    def grows(w, phi, t, batch):
        return w + 0.1 * phi["a"]

    loop, found, errors = loop_of(20, grows), [], []
    for seed in range(150):
        es = OnlineES(loop, loss, SPACE, noise=noise, window=2, num_pairs=2, radius=0.3, seed=seed)
        one = es.gradient({"a": PHI})
        found.append(one.gradient["a"])
        errors.append(one.error["a"])
    claimed = np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(found, axis=0, ddof=1)
    assert ((claimed > 0.8) & (claimed < 1.3)).all()


def test_one_reused_window_is_a_central_difference():
    es = OnlineES(loop_of(), loss, SPACE, noise="reused", window=STEPS, num_pairs=3, radius=0.1)
    found = es.gradient({"a": PHI})
    rng = np.random.default_rng(np.random.SeedSequence(0))
    rng.integers(1 << 32, size=3)  # seeds of the pairs
    rng.integers(1)  # where the first begins
    slopes = closed_form() * 2.0  # per scaled unit; differences of a quadratic are exact
    terms = [(slopes @ z) * z / 2.0 for z in (rng.normal(size=2) for _ in range(3))]
    np.testing.assert_allclose(found.gradient["a"], np.mean(terms, axis=0), rtol=1e-9)
    error = np.std(terms, axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(found.error["a"], error, rtol=1e-9)
    assert found.num_steps == 3 * 2 * STEPS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "fresh"}, "noise must be one of"),
        ({"window": 5}, "window must divide num_steps = 6, got 5"),
        ({"num_pairs": 0}, "num_pairs must be"),
        ({"radius": 0.0}, "radius must be"),
        ({"space": zb.Space(a=zb.Integer(0, 3))}, "space must hold real numbers only"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    space = options.pop("space", SPACE)
    with pytest.raises(zb.InputError, match=message):
        OnlineES(loop_of(), loss, space, **{"window": WINDOW, **options})


def test_a_loop_that_runs_away_is_refused_and_begun_anew():
    def wild(w, phi, t, batch):
        return (w + 1.0) * 1e200

    es = OnlineES(loop_of(4, wild), loss, SPACE, window=4)
    for _ in range(2):
        with pytest.raises(zb.InnerSolverError, match="loss must be finite along the loop"):
            es.gradient({"a": PHI})
