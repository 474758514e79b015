"""A store in a real PostgreSQL server, on loopback, where its programs are installed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner
from postgres_server import Proxy, running
from processes import WORKING

import zo_bilevel as zb
from zo_bilevel.cli.main import main
from zo_bilevel.testing.stores import check_store

pytest.importorskip("psycopg", reason="needs the extra postgres")


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture
def address(server, request):
    return server.database(request.node.name)


def minimize(store, inner=lambda phi: phi["a"], **options):
    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), inner, name="p")
    return zb.minimize(problem, zb.RandomSearch(), max_solves=6, store=store, **options)


def test_it_keeps_the_promises_of_a_store(address):
    check_store(lambda: zb.PostgresStore(address))


def test_runs_resume_and_are_read_on_the_command_line(address):
    first = minimize(address)
    again = minimize(address, lambda phi: 1 / 0)
    assert first.loss == again.loss
    for words in (["runs", address], ["show", address, "1"], ["export", address, "1"]):
        answer = CliRunner().invoke(main, words)
        assert answer.exit_code == 0, answer.output
    assert answer.stdout.count("\n") == 7


def test_a_second_process_is_refused_until_the_first_has_died(address):
    command = [sys.executable, "-c", WORKING, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "solving\n"
        with pytest.raises(zb.StoreError, match=r"run 1 of store 127\S+ is being worked on"):
            minimize(address)
        assert minimize(address, seed=1).solves == 6
        process.kill()
        process.wait()
    for _ in range(100):  # the server notices a moment later
        try:
            assert minimize(address).solves == 6
            break
        except zb.StoreError:
            continue


def test_a_damaged_row_is_solved_again(address):
    import psycopg

    first = minimize(address)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("UPDATE solves SET cost = 9 WHERE number = 3")
    calls = []
    again = minimize(address, lambda phi: calls.append(1) or phi["a"])
    assert (len(calls), again.loss) == (1, first.loss)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("u:secret@127.0.0.1:1/d", r"cannot open store 127\.0\.0\.1/d"),
        ("u:secret@nowhere.invalid/d", r"cannot open store nowhere\.invalid/d"),
        (
            "u:secret@[::1/d",
            "store must be an address such as postgresql://user@host:port/database",
        ),
        ("u:secret%zz@127.0.0.1/d", "one that PostgreSQL cannot read"),
    ],
)
def test_a_database_that_is_not_there_is_refused_by_name_and_no_password_is_shown(place, words):
    with pytest.raises(zb.ZoBilevelError, match=words) as told:
        minimize(f"postgresql://{place}")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_differs_is_told_by_name_and_no_time_on_record(address, hours, monkeypatch):
    right = time.time()
    monkeypatch.setattr(time, "time", lambda: right + 3600 * hours)
    way = "ahead of" if hours > 0 else "behind"
    with pytest.warns(RuntimeWarning, match=rf"clock is 36\d\d s {way} that of the database 127"):
        minimize(address)
    monkeypatch.undo()
    with zb.PostgresStore(address) as store:
        (run,) = store.records()
    assert right <= run.created <= run.updated < right + 1800


def test_a_run_that_is_interrupted_while_the_database_is_away_gives_its_result(
    server, address, monkeypatch
):
    monkeypatch.setattr("zo_bilevel.store.postgres.PATIENCE_S", 1.0)

    def inner(phi, calls=[]):  # noqa: B006 - counts
        calls.append(1)
        if len(calls) == 3:
            server.stop()
            raise KeyboardInterrupt
        return phi["a"]

    try:
        with pytest.warns(RuntimeWarning, match="how the run ended is not on record: cannot"):
            result = minimize(address, inner=inner)
    finally:
        server.start()
    assert (result.solves, result.stop_reason) == (2, "interrupted")
    assert minimize(address).solves == 6


def test_a_restart_of_the_database_does_not_end_a_run(server, address):
    def inner(phi, calls=[]):  # noqa: B006 - counts
        calls.append(1)
        if len(calls) == 3:
            server.restart()
        return phi["a"]

    quiet = minimize(address, seed=1, inner=lambda phi: phi["a"])
    assert minimize(address, seed=2, inner=inner).solves == 6
    assert minimize(address, seed=1, inner=lambda phi: 1 / 0).loss == quiet.loss


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_restart_during_a_write_does_not_end_a_run(server, address, mode):
    import psycopg

    calls = []

    def inner(phi):
        calls.append(1)
        if len(calls) == 3:  # somebody else keeps the table, so that the write has begun
            other.execute("LOCK TABLE solves IN ACCESS EXCLUSIVE MODE")
            threading.Timer(0.5, server.restart, [mode]).start()
        return phi["a"]

    quiet = minimize(None, lambda phi: phi["a"])
    other = psycopg.connect(address)  # broken by the restart, too
    found = minimize(address, inner)
    other.close()
    assert (found.loss, len(calls)) == (quiet.loss, 6)
    assert rows_of_solves(address) == 6


def rows_of_solves(address):
    with zb.PostgresStore(address) as store:
        return len(store.index(1))


@pytest.mark.parametrize("number", [3, 5])
def test_what_was_written_as_the_connection_broke_is_not_written_twice(address, number):
    with Proxy(address, number) as proxy:
        found = minimize(proxy.address)
    assert (found.solves, proxy.commits > number) == (6, True)
    assert rows_of_solves(address) == 6
