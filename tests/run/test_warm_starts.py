"""Solvers that begin from the answer of the nearest solved point."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.run.warm_starts import WarmStarts, takes_warm
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.testing import SimulatedClock

SIZE, NODES = 6, 60
PLACES = np.linspace(0, 1, NODES + 2)[1:-1]
MODES = np.array([np.sin((k + 1) * np.pi * PLACES) for k in range(SIZE)])
TRUTH = np.array([0.5, -0.4, 0.3, 0.2, -0.1, 0.1])


class Newton:
    """`-u'' + u^3 exp(2 u) = 30 exp(field)`, zero at both ends, by Newton's method."""

    name = "newton"

    def __init__(self):
        self.iterations = 0
        self.began_cold = 0

    def __call__(self, phi, *, warm=None):
        self.began_cold += warm is None
        source = 30.0 * np.exp(phi["c"] @ MODES)
        u = np.zeros(NODES) if warm is None else np.array(warm["u"])
        laplace = (NODES + 1) ** 2 * (2 * np.eye(NODES) - np.eye(NODES, k=1) - np.eye(NODES, k=-1))
        for _ in range(100):
            grown = u**3 * np.exp(2 * u)
            residual = laplace @ u + grown - source
            slope = (3 * u**2 + 2 * u**3) * np.exp(2 * u)
            step = np.linalg.solve(laplace + np.diag(slope), -residual)
            u = u + step
            self.iterations += 1
            if np.abs(step).max() < 1e-11:
                break
        return {"u": u}


class Cold(Newton):
    def __call__(self, phi):
        return super().__call__(phi)


def problem_of(solver):
    target = {"u": Newton()({"c": TRUTH})["u"]}
    space = zb.Space(c=zb.Real(-2, 2, shape=(SIZE,)))
    return zb.Problem(space, solver, zb.SquaredError(target), name="newton")


def run(solver, **options):
    return zb.minimize(problem_of(solver), max_solves=30, tolerance=1e-16, **options)


def bits(result):
    return [(record.role, record.loss) for record in result.history]


def test_a_newton_solver_needs_a_fraction_of_its_iterations():
    cold, warm = Cold(), Newton()
    first, second = run(cold), run(warm)
    for found in (first, second):
        assert np.allclose(found.phi["c"], TRUTH, atol=1e-5)
    assert warm.began_cold == 1
    per_solve = [s.iterations / r.solves for s, r in ((cold, first), (warm, second))]
    assert per_solve[0] > 1.6 * per_solve[1]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_numbers_do_not_depend_on_workers_and_replay_exactly(asynchronous, tmp_path):
    def clock(seed=0):
        return SimulatedClock(3, lambda rng: float(rng.lognormal()), seed)

    options = {"round_width": 3, "asynchronous": asynchronous}
    store = tmp_path / "runs.sqlite"
    first = run(Newton(), dispatcher=clock(), store=store, **options)
    assert bits(run(Newton(), dispatcher=clock(), **options)) == bits(first)
    if not asynchronous:
        with zb.Joblib(2, "threading") as dispatcher:
            assert bits(run(Newton(), dispatcher=dispatcher, **options)) == bits(first)
    idle = Newton()
    assert bits(run(idle, dispatcher=clock(1), store=store, **options)) == bits(first)
    assert idle.iterations == 0

    def stop(record):
        if record.solve == 9:
            raise KeyboardInterrupt

    other = tmp_path / "other.sqlite"
    run(Newton(), dispatcher=clock(), store=other, callback=stop, **options)
    again = run(Newton(), dispatcher=clock(2), store=other, **options)
    assert bits(again)[:9] == bits(first)[:9]
    if not asynchronous:
        assert bits(again) == bits(first)


def evaluated(x, theta):
    from zo_bilevel.problem.theta import flatten_theta

    flat, layout = flatten_theta(np.array(theta))
    return Evaluation(Point(np.array(x)), "ok", flat, 0.0, layout=layout)


def test_the_nearest_is_chosen_the_newest_of_equals_and_never_a_failure(monkeypatch):
    known = WarmStarts()
    assert known.nearest(np.zeros(2)) is None
    known.tell(evaluated([0.0, 0.0], [1.0]))
    known.tell(evaluated([2.0, 0.0], [2.0]))
    known.tell(evaluated([2.0, 0.0], [3.0]))
    known.tell(Evaluation(Point(np.array([1.4, 0.0])), "failed", None, np.inf))
    assert known.nearest(np.array([0.9, 0.0])) == [1.0]
    assert known.nearest(np.array([1.1, 0.0])) == [3.0]
    monkeypatch.setattr("zo_bilevel.run.warm_starts.WARM_BYTES", 60)
    known.tell(evaluated([9.0, 9.0], [4.0]))
    assert known.nearest(np.zeros(2)) == [3.0]


def test_only_solvers_that_name_it_are_given_one():
    assert takes_warm(Newton())
    assert not takes_warm(Cold())
    assert not takes_warm(lambda phi, **more: more)


def test_a_solver_may_write_on_what_it_is_given():
    def greedy(phi, *, warm=None):
        if warm is not None:
            warm[:] = 0.0
        return np.array([phi["a"], phi["a"] ** 2])

    space = zb.Space(a=zb.Real(-1, 1))
    result = zb.minimize(zb.Problem(space, greedy, zb.SquaredError([0.5, 0.25])), max_solves=12)
    assert abs(result.phi["a"] - 0.5) < 1e-6
