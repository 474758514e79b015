"""Watching and steering a run that is at work, from elsewhere."""

from __future__ import annotations

import json
import threading
import time

import pytest
from click.testing import CliRunner

import zo_bilevel as zb
from zo_bilevel.cli.main import main
from zo_bilevel.report.watch import live_page, stamp_of
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.store.queue.tables import QueueTables, Version
from zo_bilevel.store.records import StoredRun

TOKEN = "a secret of ours"


def said(*words):
    answer = CliRunner().invoke(main, list(words))
    return answer.exit_code, answer.output.strip()


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "runs.sqlite")


def at_work(place, max_solves, steer):
    """A run that is steered after its second solve, and how it ended."""
    told = threading.Event()

    def inner(phi, calls=[]):  # noqa: B006 - counts
        calls.append(1)
        if len(calls) == 2:
            time.sleep(1.1)  # a run looks once a second
            steer()
            told.set()
            time.sleep(0.1)
        return phi["a"]

    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), inner, name="p")
    result = zb.minimize(problem, zb.RandomSearch(), max_solves=max_solves, store=place)
    assert told.is_set()
    return result


def test_a_run_gets_more_budget_without_being_stopped(place):
    answers = []
    result = at_work(
        place, 4, lambda: answers.append(said("steer", place, "1", "--max-solves", "9"))
    )
    assert answers == [(0, "run 1: max_solves 9")]
    assert (result.solves, result.stop_reason) == (9, "budget of 9 solves spent")
    _, text = said("show", place, "1", "--json")
    assert json.loads(text)["settings"]["max_solves"] == 9
    quiet = zb.minimize(
        zb.Problem(zb.Space(a=zb.Real(0, 4)), lambda phi: phi["a"], name="q"),
        zb.RandomSearch(),
        max_solves=9,
        store=place,
    )
    assert [r.loss for r in result.history] == [r.loss for r in quiet.history]
    with zb.Store(place) as store:
        steered, plain = (json.loads(run.conditions) for run in store.records())
        assert steered["solves a run"] == plain["solves a run"]


def test_and_less(place):
    result = at_work(place, 50, lambda: said("steer", place, "1", "--max-solves", "3"))
    assert result.solves == 3
    assert result.stop_reason == "budget of 3 solves spent"


def test_a_run_is_stopped_from_elsewhere(place):
    result = at_work(place, 50, lambda: said("stop", place, "1"))
    assert result.stop_reason == "interrupted"


def test_what_cannot_be_steered_is_refused_by_name(place):
    zb.minimize(
        zb.Problem(zb.Space(a=zb.Real(0, 4)), lambda phi: phi["a"]), max_solves=3, store=place
    )
    assert said("steer", place, "1") == (
        2,
        "Error: steer needs --max-solves, --max-seconds or --max-cost",
    )
    code, text = said("steer", place, "1", "--max-solves", "9")
    assert (code, "run 1 of store" in text, "is not running: it is finished" in text) == (
        2,
        True,
        True,
    )
    assert said("steer", place, "7", "--max-cost", "1")[0] == 2
    assert said("steer", place, "1", "--max-solves", "0")[0] == 2


def test_the_page_shows_solves_that_run_their_workers_and_ages(place):
    pytest.importorskip("jinja2")
    pytest.importorskip("starlette")
    tables = QueueTables(place, TOKEN)
    version = Version("heat", "heat, version 1 (0)")
    for index in range(2):
        tables.submit(version, Job(index, {"a": float(index)}, 0), "run", 30.0, None)
    before = stamp_of(place)
    tables.sign_in("node7/12", version, 30.0)
    claim = tables.claim("node7/12", version, set())
    page = live_page(place)
    assert "No solves yet" in page
    for text in ("1 solves run", "heat", "node7/12", "0 s", "1 wait for a worker; 1 workers"):
        assert text in page
    assert stamp_of(place) != before
    tables.withdraw([claim.task])
    assert "0 solves run" in live_page(place)
    tables.close()


def test_the_page_shows_what_failed_solves_said(place):
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")

    def inner(phi):
        if phi["a"] > 2.5:
            raise RuntimeError("too <hot>")
        return phi["a"]

    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), inner, name="p")
    pages = []

    def look(record):
        if record.solve == 7:
            time.sleep(0.3)
            pages.append(live_page(place))

    zb.minimize(problem, zb.RandomSearch(), max_solves=8, store=place, callback=look)
    assert "last failures" in pages[0]
    assert "too &lt;hot&gt;" in pages[0]
    assert "last failures" not in live_page(place)  # the run has ended


def test_a_store_changes_only_runs_that_are_at_work():
    store = zb.MemoryStore()
    run = store.begin(StoredRun(identity="i"))
    assert store.change(run.number, settings="{}", status="running")
    assert store.stop(run.number)
    assert not store.change(run.number, settings='{"max_solves": 1}')
    assert not store.change(7, settings="{}")
    assert store.find_run(run.number).settings == "{}"
