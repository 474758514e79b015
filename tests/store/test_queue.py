"""Solves that pass through a database to workers which come and go."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing, contextmanager

import numpy as np
import pytest
from postgres_server import running

import zo_bilevel as zb
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.store.places import open_store
from zo_bilevel.store.queue.messages import (
    Seals,
    answer_from_row,
    answer_to_row,
    job_from_json,
    job_to_json,
)
from zo_bilevel.store.queue.tables import QueueTables, Version
from zo_bilevel.store.queue.worker import work
from zo_bilevel.testing import check_dispatcher

TOKEN = "a secret of ours"
PROBLEM = """
    import os, time
    import numpy as np
    import zo_bilevel as zb

    times = np.linspace(0, 3, 20)

    def simulate(phi):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write("x")
        time.sleep({sleep})
        return np.exp(-phi["rate"] * times) * np.cos(phi["frequency"] * times)

    space = zb.Space(rate=zb.Log(0.01, 10), frequency=zb.Real(0.5, 5))
    target = np.exp(-0.3 * times) * np.cos(2.0 * times)
    problem = zb.Problem(space, simulate, zb.SquaredError(target), name="p", version="{version}")
"""


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "queue.sqlite")
    return request.getfixturevalue("server").database(request.node.name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ZO_BILEVEL_TOKEN", TOKEN)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr("zo_bilevel.store.queue.queue.SILENCE_S", 600.0)  # workers start at leisure
    write(tmp_path)
    return tmp_path


def write(folder, version="1", sleep=0.0):
    (folder / "oscillator.py").write_text(textwrap.dedent(PROBLEM).format(**locals()))


def problem_in(folder):
    scope = {}
    exec((folder / "oscillator.py").read_text(), scope)
    return scope["problem"]


def calls(folder):
    return len((folder / "calls").read_text())


def start_worker(place, folder, *words):
    command = [sys.executable, "-m", "zo_bilevel", "worker", place, "oscillator.py", *words]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


@contextmanager
def workers(place, folder, count, *words):
    started = [start_worker(place, folder, *words) for _ in range(count)]
    try:
        yield started
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            assert worker.wait(20) == 0, worker.stderr.read()
            worker.stderr.close()


@contextmanager
def worker_thread(place, problem):
    thread = threading.Thread(
        target=work, args=(place, problem), kwargs={"token": TOKEN, "idle_s": 1.0}
    )
    thread.start()
    yield
    thread.join(20)
    assert not thread.is_alive()


def minimize(folder, dispatcher=None, **options):
    options = {"max_solves": 24, "initial": {"rate": 1.0, "frequency": 1.5}, **options}
    return zb.minimize(problem_in(folder), dispatcher=dispatcher, round_width=4, **options)


def losses(result):
    return [record.loss for record in result.history], result.theta.tobytes()


def test_it_keeps_the_promises_of_a_dispatcher(place, folder):
    from zo_bilevel.testing.conformance import sample_problem

    problem = dataclasses.replace(sample_problem(), name="")
    with worker_thread(place, problem):
        check_dispatcher(zb.Queue(place, token=TOKEN), problem.inner)


@pytest.mark.slow  # tests/run/test_four_places.py runs three, too
def test_three_workers_give_the_numbers_of_one_process(place, folder):
    quiet = minimize(folder)
    write(folder, sleep=0.05)
    with workers(place, folder, 3), zb.Queue(place) as queue:
        shared = minimize(folder, queue, store=place)
    assert losses(shared) == losses(quiet)
    with open_store(place) as store:
        (run,) = store.records()
        names = {solve.worker.partition("/")[2] for solve in store.solves(run)}
    assert len(names) > 1


def test_workers_need_no_rounds(place, folder):
    problem = problem_in(folder)
    options = {"max_solves": 12, "round_width": 3}
    quiet = zb.minimize(problem, zb.RandomSearch(), **options)
    with worker_thread(place, problem), zb.Queue(place) as queue:
        found = zb.minimize(
            problem, zb.RandomSearch(), dispatcher=queue, asynchronous=True, store=place, **options
        )
        again = zb.minimize(
            problem, zb.RandomSearch(), dispatcher=queue, asynchronous=True, store=place, **options
        )
    assert sorted(r.loss for r in found.history) == sorted(r.loss for r in quiet.history)
    assert losses(again) == losses(found)


@pytest.mark.slow
def test_kills_joins_and_leaves_at_random_change_nothing(place, folder):
    quiet = minimize(folder)
    write(folder, sleep=0.2)
    before = calls(folder)
    dice = random.Random(0)
    found = []
    with zb.Queue(place, lease_s=1.0) as queue:
        run = threading.Thread(target=lambda: found.append(minimize(folder, queue)))
        run.start()
        crew, taken_away = [], 0
        for turn in range(20):
            crew.append(start_worker(place, folder))
            time.sleep(0.25)
            if len(crew) > 2 and turn < 19:
                leaving = crew.pop(dice.randrange(len(crew)))
                leaving.send_signal(signal.SIGKILL if turn % 2 else signal.SIGTERM)
                leaving.wait(20)
                leaving.stderr.close()
                taken_away += 1
        run.join(120)
        for worker in crew:
            worker.terminate()
            worker.communicate(timeout=20)
    assert losses(found[0]) == losses(quiet)
    assert calls(folder) - before <= quiet.solves + taken_away  # only what was in flight


@pytest.mark.slow
def test_a_database_restart_changes_nothing(server, folder):
    place = server.database("restart")
    quiet = minimize(folder)
    write(folder, sleep=0.1)
    with workers(place, folder, 2), zb.Queue(place, lease_s=2.0) as queue:
        timer = threading.Timer(2.0, server.restart)
        timer.start()
        shared = minimize(folder, queue, store=place)
        timer.join()
    assert losses(shared) == losses(quiet)


def test_after_an_outage_who_holds_a_solve_comes_before_who_would_take_it(server, monkeypatch):
    place = server.database("outage")
    with closing(QueueTables(place, TOKEN)) as first, closing(QueueTables(place, TOKEN)) as second:
        first.submit(ONE, Job(0, {"a": 1.0}, 0), "run", 0.1, None)
        claim = first.claim("first", ONE, set())
        server.restart()  # for longer than the lease
        time.sleep(0.1)
        assert second.claim("second", ONE, set()) is None
        assert first.renew(claim)
        time.sleep(0.1)
        monkeypatch.setattr("zo_bilevel.store.queue.tables.RETURN_S", 0.0)
        assert second.claim("second", ONE, set()).task == claim.task  # lost after all


def test_who_leaves_while_the_database_is_away_does_not_wait_for_it(server, monkeypatch):
    place = server.database("leave")
    monkeypatch.setattr("zo_bilevel.store.postgres.PATIENCE_S", 1.0)

    def leave(*_):
        server.stop()
        raise KeyboardInterrupt

    monkeypatch.setattr(QueueTables, "claim", leave)
    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), abs, name="p")
    with zb.Queue(place, token=TOKEN) as queue, closing(queue.stream(Solve(abs))) as stream:
        stream.submit(Job(0, {"a": 1.0}, 0))
        try:
            with pytest.raises(KeyboardInterrupt):
                work(place, problem, token=TOKEN)
            stream.close()
        finally:
            server.start()


RUN = """
    import sys, zo_bilevel as zb
    from oscillator import problem
    queue = zb.Queue(sys.argv[1], lease_s=2.0)
    zb.minimize(problem, dispatcher=queue, store=sys.argv[1], max_solves=24, round_width=4,
                initial={"rate": 1.0, "frequency": 1.5})
"""


@pytest.mark.slow
def test_solves_of_a_killed_run_go_on_and_are_collected_by_the_next(place, folder):
    quiet = minimize(folder)
    write(folder, sleep=0.5)
    (folder / "run.py").write_text(textwrap.dedent(RUN))
    before = calls(folder)
    with workers(place, folder, 2):
        run = subprocess.Popen([sys.executable, "run.py", place], cwd=folder)
        while calls(folder) < before + 4:
            time.sleep(0.05)
        run.kill()
        run.wait()
        with zb.Queue(place) as queue:
            resumed = minimize(folder, queue, store=place)
    assert losses(resumed) == losses(quiet)
    assert calls(folder) - before == quiet.solves


def test_an_overdue_solve_is_duplicated_and_the_first_answer_counts(place, folder):
    stuck = folder / "stuck"

    def inner(phi, stuck=str(stuck)):
        try:
            os.close(os.open(stuck, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return phi["a"]
        time.sleep(60)
        return phi["a"]

    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), inner, name="stuck")
    with (
        zb.Queue(place, token=TOKEN, lease_s=1.0, overdue_s=0.5) as queue,
        worker_thread(place, problem),
        worker_thread(place, problem),
    ):
        result = zb.minimize(
            problem, zb.RandomSearch(), max_solves=1, dispatcher=queue, store=place
        )
    assert result.loss == 2.0
    with open_store(place) as store:
        (solve,) = store.solves(store.find_run(1))
        assert solve.worker.endswith("first of 2 claims")


def test_time_that_is_over_takes_solves_out_of_the_queue(place, folder):
    queue = zb.Queue(place)
    jobs = [Job(0, {"a": 1.0}, 0)]
    assert list(queue.run_within(Solve(abs), jobs, 0.05)) == []
    with open_store(place) as store:
        assert store.ask("SELECT COUNT(*) FROM queue_tasks") == [(0,)]
    queue.close()


@pytest.fixture
def tables(place):
    tables = QueueTables(place, TOKEN)
    yield tables
    tables.close()


ONE = Version("p", "p, version 1 (0)")


def test_a_task_of_somebody_else_is_not_taken(tables):
    tables.submit(ONE, Job(0, {"a": 1.0}, 0), "run", 30.0, None)
    tables._store.ask("UPDATE queue_tasks SET job = ?", ('[0, 0, {"a": 2.0}]',))
    refused = set()
    assert tables.claim("w", ONE, refused) is None
    assert len(refused) == 1


@pytest.mark.parametrize("column", ["answer", "theta", "answer_seal"])
def test_an_answer_of_somebody_else_is_not_believed_and_asked_for_again(tables, column):
    task = tables.submit(ONE, Job(0, {"a": 1.0}, 0), "run", 30.0, None)
    claim = tables.claim("w", ONE, set())
    good = Outcome("ok", np.array([1.0]), ThetaLayout((), ((),)))
    assert tables.answer(claim, good, "w")
    assert not tables.answer(claim, good, "w")  # the first counts
    forged = b"\0" + np.array([2.0]).tobytes() if column != "answer" else '["failed"]'
    tables._store.ask(f"UPDATE queue_tasks SET {column} = ?", (forged,))
    assert tables.collect(task) is None
    assert tables.claim("other", ONE, set()) is None  # the first worker's claim still holds
    assert tables.answer(claim, good, "w")
    assert tables.collect(task).theta.item() == 1.0


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lost_claim_is_free_again_and_a_renewed_one_is_not(tables, hours, monkeypatch):
    clock = time.time
    tables.submit(ONE, Job(0, {"a": 1.0}, 0), "run", 0.3, None)
    monkeypatch.setattr(time, "time", lambda: clock() + 3600 * hours)  # the first worker's clock
    first = tables.claim("first", ONE, set())
    for _ in range(2):
        time.sleep(0.2)
        assert tables.renew(first)
    monkeypatch.undo()
    assert tables.claim("second", ONE, set()) is None
    time.sleep(0.35)
    second = tables.claim("second", ONE, set())
    assert second.task == first.task
    tables.withdraw([first.task])
    assert not tables.renew(second)


def test_a_solve_that_every_worker_is_lost_with_has_crashed(place, folder, monkeypatch):
    monkeypatch.setattr("zo_bilevel.store.queue.tables.MOST_LOST", 2)
    monkeypatch.setattr("zo_bilevel.store.queue.queue.MOST_LOST", 2)
    solve = Solve(abs, name="abs")
    with zb.Queue(place, lease_s=0.05) as queue, QueueTablesThatLose(place, solve):
        ((_, outcome),) = queue.run(solve, [Job(0, {"a": 1.0}, 0)])
    assert (outcome.status, outcome.error) == (
        "crashed",
        "2 workers were lost with it, one by one",
    )


@contextmanager
def QueueTablesThatLose(place, solve):  # noqa: N802
    """Two workers that take a task and are never heard of again."""

    def lose():
        tables = QueueTables(place, TOKEN)
        claims = 0
        while claims < 2:
            claims += tables.claim(f"w{claims}", Version.of(solve), set()) is not None
            time.sleep(0.01)
        tables.close()

    thread = threading.Thread(target=lose)
    thread.start()
    yield
    thread.join()


def test_a_worker_with_another_version_is_refused_by_identity(place, folder):
    with zb.Queue(place) as queue:
        answers = queue.run(Solve(abs, name="p", version="2"), [Job(0, {"a": 1.0}, 0)])
        thread = threading.Thread(target=list, args=[answers])
        thread.start()
        worker = start_worker(place, folder)
        said = worker.communicate(timeout=20)[1]
        assert worker.returncode == 2
        assert "this worker has p, version 1 (" in said
        assert "asks for p, version 2 (" in said
        with QueueTablesThatLose_answer(place):
            thread.join()


@contextmanager
def QueueTablesThatLose_answer(place):  # noqa: N802
    tables = QueueTables(place, TOKEN)
    version = Version.of(Solve(abs, name="p", version="2"))
    claim = tables.claim("w", version, set())
    tables.answer(claim, Outcome("failed", error="on purpose"), "w")
    yield
    tables.close()


@pytest.mark.parametrize(
    "value",
    [
        0.1,
        -0.0,
        7,
        2**80,
        True,
        None,
        "µ\udc80",
        [1, (2.5, {"a": None})],
        np.float32(0.1),
        np.array([[0.1, np.nan]]),
        np.array([1, 2], np.int64),
        np.array(["a", None], dtype=object),
    ],
)
def test_values_pass_as_they_are(value):
    back = job_from_json(job_to_json(Job(3, {"a": value}, 2**40)))
    assert (back.index, back.seed) == (3, 2**40)
    found = back.phi["a"]
    assert type(found) is type(value)
    assert repr(found) == repr(value)


def test_outcomes_pass_as_they_are():
    theta = np.random.default_rng(0).normal(size=300)
    for outcome in (
        Outcome("ok", theta, ThetaLayout(("u", "v"), ((100,), (2, 100)), "float32"), 0.1, 0.2),
        Outcome("timed_out", seconds=0.1, cost=3.0, error="kill\0ed µ"),
        Outcome("stopped", error="no money"),
    ):
        back = answer_from_row(*answer_to_row(outcome, "w"))
        assert back.worker == "w"
        facts = ("status", "layout", "seconds", "cost", "error")
        assert all(getattr(back, name) == getattr(outcome, name) for name in facts)
        assert np.array_equal(back.theta, outcome.theta)


def test_bad_input_is_refused_by_name(place, folder, monkeypatch):
    with pytest.raises(zb.InputError, match="parameter 'a' must be made of numbers"):
        job_to_json(Job(0, {"a": {1, 2}}, 0))
    with pytest.raises(zb.InputError, match=r"lease_s must be finite and > 0, got 0"):
        zb.Queue(place, lease_s=0)
    with pytest.raises(zb.InputError, match="token must have at least 16 characters, got 5"):
        Seals("short")
    monkeypatch.delenv("ZO_BILEVEL_TOKEN")
    with pytest.raises(zb.InputError, match="got none: run and workers share one secret"):
        zb.Queue(place)
    with pytest.raises(zb.StoreError, match=r"cannot open store 127\.0\.0\.1/d"):
        zb.Queue("postgresql://u:hidden@127.0.0.1:1/d", token=TOKEN)
    with pytest.raises(zb.InputError, match="exact derivatives"):
        job_to_json(Job(0, {}, 0, lambda *_: None))


@pytest.mark.parametrize("is_worker_there", [False, True])
def test_a_run_that_no_worker_serves_says_so_once(is_worker_there, tmp_path, monkeypatch):
    monkeypatch.setattr("zo_bilevel.store.queue.queue.SILENCE_S", 0.05)
    solve = Solve(lambda phi: phi["a"], None, "p", "1")
    file = tmp_path / "queue.sqlite"
    if is_worker_there:
        QueueTables(file, TOKEN).sign_in("w", Version.of(solve), 30.0)
    words = "1 workers are there; busy elsewhere, or with another token"
    words = words if is_worker_there else "0 workers are there; start some"
    with zb.Queue(file, token=TOKEN) as queue, pytest.warns(RuntimeWarning, match=words) as said:
        assert list(queue.run_within(solve, [Job(0, {"a": 1.0}, 0)], 0.3)) == []
    assert len(said) == 1
