"""Guards of a shared store, seen from outside: without them runs get each other's numbers."""

import zo_bilevel as zb

SPACE = zb.Space(a=zb.Real(0, 1))
TARGET = zb.SquaredError([0.2, 1.0])


class Named:
    """A solver with a name of its own, as adapters have."""

    name = "named"

    def __init__(self, fails_at=0):
        self.calls, self.fails_at = 0, fails_at

    def __call__(self, phi):
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("disk full today")
        return [phi["a"], 1.0]


def run(store, solver, method=None, space=SPACE, **options):
    method = zb.RandomSearch() if method is None else method
    return zb.minimize(zb.Problem(space, solver, TARGET), method, store=store, **options)


def test_the_same_scaled_point_of_another_range_is_another_solve(tmp_path):
    store = tmp_path / "runs.sqlite"
    for upper in (1.0, 10.0):
        found = run(store, Named(), space=zb.Space(a=zb.Real(0, upper)), max_solves=1)
        assert found.theta.tolist() == [upper / 2, 1.0]


def test_failures_stay_with_the_run_that_had_them(tmp_path):
    store = tmp_path / "runs.sqlite"
    first = run(store, Named(fails_at=2), max_solves=3, seed=1)
    assert first.failures == {"failed": 1}
    phases = zb.TwoPhase([(zb.RandomSearch(), 50), (zb.RandomSearch(), None)])
    solver = Named()
    other = run(store, solver, phases, max_solves=3, seed=1)
    assert [r.status for r in other.history] == ["ok"] * 3
    assert solver.calls == 1  # what was ok is taken over


def test_another_round_width_is_another_run(tmp_path):
    store = tmp_path / "runs.sqlite"
    for width in (1, 4, 1):
        run(store, Named(), max_solves=6, round_width=width)
    with zb.Store(store) as opened:
        assert len(opened.runs()) == 2
