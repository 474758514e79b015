"""The store: nothing paid for is lost, nothing wrong is reused."""

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.comparison.stored_runs import found_by, settings_of
from zo_bilevel.estimators.orders import Push
from zo_bilevel.problem.space_text import space_from_text, space_to_text
from zo_bilevel.run.identity import objective_text
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.store.arrays import pack_array, unpack_array
from zo_bilevel.store.sqlite import Store
from zo_bilevel.store.theta_files import LARGE_THETA_BYTES
from zo_bilevel.support.errors import StoreError

SPACE = zb.Space(a=zb.Real(-3, 3, (3,)))
METHOD = zb.GradientMethod(zb.FG2UZO(2))


class Counting:
    name = "counting"

    def __init__(self, crash_at=None, size=4):
        self.calls, self.crash_at, self.size = 0, crash_at, size

    def __call__(self, phi):
        self.calls += 1
        if self.calls == self.crash_at:
            raise KeyboardInterrupt
        return np.resize(np.sin(phi["a"]), self.size)


def problem(inner, version="1"):
    return zb.Problem(SPACE, inner, zb.SquaredError(np.zeros(inner.size)), version=version)


def numbers(result):
    return [(r.solve, r.round, r.loss, r.status) for r in result.history]


def test_the_same_run_again_solves_nothing_and_gives_the_same_bits(tmp_path):
    store, first, second = tmp_path / "runs.sqlite", Counting(), Counting()
    one = zb.minimize(problem(first), METHOD, max_solves=30, store=store)
    two = zb.minimize(problem(second), METHOD, max_solves=30, store=store)
    assert first.calls == 30
    assert second.calls == 0
    assert numbers(one) == numbers(two)
    assert np.array_equal(one.phi["a"], two.phi["a"])
    assert np.array_equal(one.theta, two.theta)


@pytest.mark.parametrize("crash_at", [1, 2, 5, 17, 29])
def test_an_interrupted_run_goes_on_in_the_middle_of_a_round(tmp_path, crash_at):
    whole = zb.minimize(problem(Counting()), METHOD, max_solves=30)
    store, broken, rest = tmp_path / "runs.sqlite", Counting(crash_at), Counting()
    try:
        assert zb.minimize(problem(broken), METHOD, max_solves=30, store=store).stop_reason == (
            "interrupted"
        )
    except KeyboardInterrupt:
        assert crash_at <= 3  # nothing finished, or no whole round yet
    resumed = zb.minimize(problem(rest), METHOD, max_solves=30, store=store)
    assert rest.calls == 30 - (crash_at - 1)
    assert numbers(resumed) == numbers(whole)


def test_another_version_seed_or_solver_is_not_reused(tmp_path):
    store = tmp_path / "runs.sqlite"
    zb.minimize(problem(Counting()), METHOD, max_solves=9, store=store)
    newer, renamed = Counting(), Counting()
    zb.minimize(problem(newer, version="2"), METHOD, max_solves=9, store=store)
    renamed.name = "another"
    zb.minimize(problem(renamed), METHOD, max_solves=9, store=store)
    assert newer.calls == renamed.calls == 9


def test_lambdas_of_different_code_do_not_share_answers(tmp_path):
    store, space = tmp_path / "runs.sqlite", zb.Space(a=zb.Real(0, 1))
    one = zb.minimize(zb.Problem(space, lambda p: p["a"] + 1.0), METHOD, max_solves=3, store=store)
    two = zb.minimize(zb.Problem(space, lambda p: p["a"] + 2.0), METHOD, max_solves=3, store=store)
    assert two.loss == pytest.approx(one.loss + 1.0)


class Dice:
    """A solver with randomness of its own: the same point, other numbers."""

    name = "dice"

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, phi):
        return float(self.rng.normal())


class Repeating(zb.Method):
    name = "repeating"

    def rounds(self, search):
        while True:
            yield [zb.Point(search.start) for _ in range(2)]


def test_repeated_points_are_solved_again_and_replayed_in_their_order(tmp_path):
    store, space = tmp_path / "runs.sqlite", zb.Space(a=zb.Real(0, 1))
    one = zb.minimize(zb.Problem(space, Dice(0)), Repeating(), max_solves=8, store=store)
    two = zb.minimize(zb.Problem(space, Dice(1)), Repeating(), max_solves=8, store=store)
    assert len({r.loss for r in one.history}) == 8
    assert numbers(one) == numbers(two)


def test_failures_are_replayed_within_the_run(tmp_path):
    store = tmp_path / "runs.sqlite"

    class Fragile(Counting):
        def __call__(self, phi):
            super().__call__(phi)
            if self.calls % 4 == 0:
                raise ValueError("no convergence")
            return np.zeros(4)

    one = zb.minimize(problem(Fragile()), zb.RandomSearch(), max_solves=20, store=store)
    again = Fragile()
    two = zb.minimize(problem(again), zb.RandomSearch(), max_solves=20, store=store)
    assert again.calls == 0
    assert numbers(one) == numbers(two)
    assert one.failures == two.failures == {"failed": 5}


def test_large_solutions_go_to_files_beside_the_store(tmp_path):
    store, size = tmp_path / "runs.sqlite", LARGE_THETA_BYTES // 4

    class Wide(Counting):
        def __call__(self, phi):
            super().__call__(phi)
            return np.random.default_rng(0).normal(size=self.size) + phi["a"][0]

    zb.minimize(problem(Wide(size=size)), METHOD, max_solves=3, store=store)
    assert len(os.listdir(tmp_path / "runs.sqlite.theta")) == 3
    again = Wide(size=size)
    zb.minimize(problem(again), METHOD, max_solves=3, store=store)
    assert again.calls == 0
    assert store.stat().st_size < LARGE_THETA_BYTES


def test_rows_hold_no_pickle_and_can_be_read_with_plain_sql(tmp_path):
    store = tmp_path / "runs.sqlite"
    zb.minimize(problem(Counting()), METHOD, max_solves=6, store=store)
    rows = sqlite3.connect(store).execute("SELECT point, theta, judged, loss, layout FROM solves")
    for point, theta, judged, loss, layout in rows:
        assert b"numpy" not in point + theta
        assert judged == "ok"
        assert loss >= 0
        json.loads(layout)


SCRIPT = """
import sys, time, numpy as np, zo_bilevel as zb

def inner(phi):
    with open(sys.argv[2], "a") as log:
        log.write("x")
    time.sleep(0.01)
    return np.sin(phi["a"])

problem = zb.Problem(zb.Space(a=zb.Real(-3, 3, (4,))), inner, zb.SquaredError(np.ones(4)))
result = zb.minimize(problem, zb.RandomSearch(), max_solves=60, store=sys.argv[1])
print([r.loss.hex() for r in result.history])
"""


def test_two_processes_may_share_one_store(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(SCRIPT).replace("max_solves=60", "max_solves=60, seed=int(sys.argv[3])")
    )
    store, log = str(tmp_path / "runs.sqlite"), str(tmp_path / "log")
    running = [
        subprocess.Popen(
            [sys.executable, str(script), store, log, str(seed)], stdout=subprocess.PIPE
        )
        for seed in (0, 1)
    ]
    assert [process.wait() for process in running] == [0, 0]
    for process in running:
        process.stdout.close()
    with Store(store, read_only=True) as opened:
        assert [row["solves"] for row in opened.runs()] == [60, 60]
        assert {row["status"] for row in opened.runs()} == {"finished"}


def broken_file(path):
    path.write_bytes(b"this is no database, but long enough to look like one" * 100)


def foreign_file(path):
    sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.commit()


def older_file(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE runs (id INTEGER)")
    connection.execute("CREATE TABLE evaluations (id INTEGER)")
    connection.commit()
    connection.close()


def file_with_a_trigger(path):
    zb.Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TRIGGER mine AFTER INSERT ON solves BEGIN UPDATE solves SET loss = 0; END"
    )
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (broken_file, "the file is damaged or no store"),
        (foreign_file, "no store of this package"),
        (older_file, "is damaged or of another version of zo_bilevel"),
        (file_with_a_trigger, "is damaged or of another version of zo_bilevel"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_unusable_files_are_refused_before_the_first_solve(tmp_path, spoil, message):
    path, inner = tmp_path / "runs.sqlite", Counting()
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(zb.StoreError, match=message):
        zb.minimize(problem(inner), METHOD, max_solves=5, store=path)
    assert inner.calls == 0
    assert path.read_bytes() == before


def test_directories_are_refused_by_name(tmp_path):
    with pytest.raises(zb.InputError, match="store must be a file, got the directory"):
        zb.minimize(problem(Counting()), METHOD, max_solves=5, store=tmp_path)
    with pytest.raises(zb.InputError, match="must lie in a directory that exists"):
        zb.minimize(problem(Counting()), METHOD, max_solves=5, store=tmp_path / "no" / "r.sqlite")


def test_a_full_disk_stops_the_run_with_the_best_so_far_and_keeps_what_was_written(tmp_path):
    path = tmp_path / "runs.sqlite"
    with Store(path) as store:
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages + 12}")
        wide = Counting(size=1000)
        with pytest.raises(zb.StoreError, match=r"full.*best so far: loss"):
            zb.minimize(problem(wide), zb.RandomSearch(), max_solves=500, store=store)
    with Store(path, read_only=True) as store:
        kept = store.runs()[0]["solves"]
    assert 0 < kept < 500
    again = Counting(size=1000)
    result = zb.minimize(problem(again), zb.RandomSearch(), max_solves=100, store=path)
    assert result.solves == 100
    assert again.calls == 100 - min(kept, 100)


def rows(path, sql):
    connection = sqlite3.connect(path)
    found = connection.execute(sql).fetchall()
    connection.close()
    return found


def test_what_another_run_solved_is_taken_over_with_a_row_that_names_it(tmp_path):
    store, inner = tmp_path / "runs.sqlite", Counting()
    zb.minimize(problem(Counting()), METHOD, max_solves=9, store=store, seed=1)
    zb.minimize(problem(inner), zb.RandomSearch(), max_solves=9, store=store, seed=1)
    assert inner.calls == 8  # the start is common
    ((count, sources),) = rows(
        store, "SELECT COUNT(*), SUM(source <> x'') FROM solves WHERE run = 2"
    )
    assert (count, sources) == (9, 1)
    again = Counting()
    zb.minimize(problem(again), zb.RandomSearch(), max_solves=9, store=store, seed=1)
    assert again.calls == 0
    assert rows(store, "SELECT COUNT(*) FROM solves") == [(18,)]


class Other(Repeating):
    name = "other"


def test_dice_thrown_by_another_run_are_replayed_in_the_order_of_this_one(tmp_path):
    store, space = tmp_path / "runs.sqlite", zb.Space(a=zb.Real(0, 1))
    zb.minimize(zb.Problem(space, Dice(0)), Repeating(), max_solves=3, store=store)
    one = zb.minimize(zb.Problem(space, Dice(1)), Other(), max_solves=8, store=store)
    two = zb.minimize(zb.Problem(space, Dice(2)), Other(), max_solves=8, store=store)
    assert len({r.loss for r in one.history}) == 8
    assert numbers(one) == numbers(two)


class Differentiable(Counting):
    """theta = sin(a), four of its numbers, with its exact derivative along directions."""

    def jvp(self, phi, tangents, *, seed):
        self.calls += 1
        return np.sin(phi["a"]), np.cos(phi["a"]) * tangents["a"]


class Pushing(zb.Method):
    name = "pushing"

    def __init__(self, scale=1.0):
        self.scale, self.seen = scale, []

    def rounds(self, search):
        order = Push(self.scale * np.eye(3)[:, :2])
        (found,) = yield [Point(search.start, derivative=order)]
        self.seen.append(found.derivative)
        yield [Point(search.start)]
        return "done"


def test_a_derivative_is_stored_with_its_solve_and_told_apart_by_its_directions(tmp_path):
    store = tmp_path / "runs.sqlite"

    def run(inner, scale):
        method = Pushing(scale)
        subject = zb.Problem(SPACE, inner, zb.SquaredError(np.zeros(3)))
        zb.minimize(subject, method, max_solves=9, store=store, initial={"a": np.full(3, 0.5)})
        return method.seen[0]

    first, again, other = Differentiable(), Differentiable(), Differentiable()
    one, two = run(first, 1.0), run(again, 1.0)
    assert (first.calls, again.calls) == (2, 0)
    assert one.shape == two.shape == (3, 2)
    assert one.tobytes() == two.tobytes()
    assert np.array_equal(run(other, 2.0), 2.0 * one)
    assert other.calls == 1  # the plain solve of the same point is no answer, and needs none


def test_the_loss_of_a_solve_that_was_killed_before_it_was_judged_is_added_later(tmp_path):
    store = tmp_path / "runs.sqlite"
    zb.minimize(problem(Counting()), METHOD, max_solves=9, store=store)
    with Store(store) as opened:
        solves = [
            dataclasses.replace(s, judged="", loss=None) for s in opened.solves(opened.find_run(1))
        ]
        opened.write(judged=solves)
    zb.minimize(problem(again := Counting()), METHOD, max_solves=9, store=store)
    assert again.calls == 0
    assert rows(store, "SELECT COUNT(*) FROM solves WHERE judged = 'ok' AND loss IS NOT NULL") == [
        (9,)
    ]


def test_what_a_run_found_is_stored_with_it(tmp_path):
    store = tmp_path / "runs.sqlite"

    def noisy(phi, seed):
        return np.sin(phi["a"]) + np.random.default_rng(seed).normal(0, 0.1, 3)

    subject = zb.Problem(SPACE, noisy, zb.SquaredError(np.zeros(3)), "noisy")
    result = zb.minimize(subject, zb.RandomSearch(), max_solves=40, store=store, seed=3)
    with Store(store) as opened:
        (run,) = opened.records()
        found = found_by(opened, run)
    assert (run.status, found.loss, found.standard_error) == (
        "finished",
        result.loss,
        result.standard_error,
    )
    assert (found.solves, found.rounds, found.seconds) == (40, result.rounds, result.seconds)
    assert unpack_array(run.point, 3).tobytes() == result.x.tobytes()
    assert unpack_array(run.start, 3).tobytes() == SPACE.encode(None).tobytes()
    # killed while it goes on with more: what it found the last time no longer holds
    with pytest.raises(ZeroDivisionError):
        zb.minimize(subject, zb.RandomSearch(), max_solves=50, store=store, seed=3, callback=oops)
    with Store(store) as opened:
        (run,) = opened.records()
        found = found_by(opened, run)
    assert (run.status, found.solves, found.standard_error) == ("failed", 5, None)
    assert found.loss == min(record.loss for record in result.history[:5])


def oops(record):
    if record.solve == 5:
        raise ZeroDivisionError


def test_a_first_solve_that_is_interrupted_is_no_failure(tmp_path):
    store = tmp_path / "runs.sqlite"
    with pytest.raises(KeyboardInterrupt):
        zb.minimize(problem(Counting(1)), METHOD, max_solves=9, store=store)
    assert rows(store, "SELECT status, stop_reason FROM runs") == [("interrupted", "interrupted")]


@pytest.mark.parametrize("values", [np.zeros(5000), np.random.default_rng(0).normal(size=5000)])
def test_arrays_come_back_to_the_last_bit(values):
    data = pack_array(values)
    assert unpack_array(data, 5000).tobytes() == values.tobytes()
    assert len(data) <= values.nbytes + 1
    assert len(pack_array(np.zeros(5000))) < 500
    for damaged in (b"", b"y" + data[1:], data[:-3]):
        with pytest.raises(StoreError, match="an array in the store is damaged"):
            unpack_array(damaged, 5000)
    for size in (4999, 5001, 0, 1 << 40):
        with pytest.raises(StoreError, match="an array in the store is damaged"):
            unpack_array(data, size)


def scaled(factor):
    return lambda theta, phi: float(factor * np.sum(theta))


def test_outer_objectives_are_told_apart_by_what_they_hold():
    def text(outer):
        return objective_text(zb.Problem(SPACE, Counting(), outer))

    target = np.random.default_rng(0).normal(size=4)
    known = text(zb.SquaredError(target))
    assert known.startswith("SquaredError #")
    # the last bits of a target that was computed depend on the machine
    assert text(zb.SquaredError(target * (1 + 1e-15))) == known
    others = [
        zb.SquaredError(target + 1e-3),
        zb.SquaredError(target, weights=np.arange(1.0, 5.0)),
        zb.SquaredError(target.reshape(2, 2)),
        zb.CrossEntropy([0, 1]),
        zb.CrossEntropy([1, 1]),
        scaled(1.0),
        scaled(2.0),
        None,
    ]
    texts = [text(outer) for outer in others]
    assert len({known, *texts}) == 1 + len(others)
    assert text(scaled(2.0)) == texts[-2]
    assert objective_text(zb.Problem(SPACE, Counting(), zb.SquaredError(target)).scalar) == (
        f"{known}, seen as its loss only"
    )


def test_spaces_are_read_back_without_running_anything():
    space = zb.Space(
        {"a b": zb.Real(-1.0, 2.0, (2, 3), 0.5), "c": zb.Log(1e-3, 0.1), "d": zb.Integer(1, 4)},
        e=zb.Choice(["x", 2, None, True]),
    )
    assert repr(space_from_text(space_to_text(space))) == repr(space)
    with pytest.raises(StoreError, match="the space of a run cannot be read"):
        space_from_text('[{"name": "a", "kind": "os.system", "shape": []}]')


def test_quorum_with_a_store_repeats_what_the_clock_decided(tmp_path):
    store = tmp_path / "runs.sqlite"

    def straggling(phi):
        time.sleep(30.0 if phi["a"][0] > 1.5 else 0.0)
        return np.sin(phi["a"])

    def run(quorum):
        subject = zb.Problem(SPACE, straggling, zb.SquaredError(np.zeros(3)), name="straggling")
        options = {"round_width": 4, "max_solves": 21, "store": store}
        with zb.Joblib(n_jobs=4, quorum=quorum) as dispatcher:
            return zb.minimize(subject, zb.RandomSearch(), dispatcher=dispatcher, **options)

    one = run(0.5)
    assert one.failures["timed_out"] >= 1
    assert numbers(run(0.5)) == numbers(run(None)) == numbers(one)


def test_many_may_open_a_new_store_at_once(tmp_path):
    for number in range(10):
        path, failed = tmp_path / f"{number}.sqlite", []

        def open_it(path=path, failed=failed):
            try:
                Store(path).close()
            except StoreError as error:
                failed.append(error)

        threads = [threading.Thread(target=open_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []


def test_settings_that_are_texts_are_no_damage():
    problem = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: [phi["a"]], zb.SquaredError([0.5]))
    with zb.MemoryStore() as store:
        zb.minimize(problem, zb.RandomSearch(), max_solves=4, patience=3, store=store)
        settings = settings_of(store.find_run(1))
    assert settings == {"max_solves": 4, "round_width": 1}
