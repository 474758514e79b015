"""What a run tells of each of its solves: in its history, to a callback, to a log, to a file."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.run import ledger
from zo_bilevel.run.progress import Progress

TIMES = np.linspace(0.0, 2.0, 5)
SPACE = zb.Space(
    rate=zb.Real(0, 4), gain=zb.Real(0, 2, shape=(2,)), kind=zb.Choice(["one", ("two", 2)])
)


def simulate(phi):
    if phi["rate"] > 3:
        raise RuntimeError("too fast")
    return {"fall": phi["gain"][0] * np.exp(-phi["rate"] * TIMES), "end": phi["gain"][1]}


@pytest.fixture
def problem():
    target = simulate({"rate": 1.0, "gain": [1.0, 0.5]})
    return zb.Problem(SPACE, simulate, zb.SquaredError(target))


def run(problem, **options):
    return zb.minimize(problem, zb.RandomSearch(), max_solves=20, **options)


def test_every_solve_has_its_parameters_and_answer(problem):
    seen = []
    history = run(problem, callback=seen.append).history
    assert history == tuple(seen)
    for record in history:
        if record.status == "ok":
            expected = simulate(record.phi)
            np.testing.assert_array_equal(record.theta["fall"], expected["fall"])
            assert record.theta["end"] == expected["end"]
        else:
            assert record.phi["rate"] > 3
            assert record.theta is None
            assert "too fast" in record.error
    assert {record.status for record in history} == {"ok", "failed"}


def test_a_history_holds_so_much_and_a_callback_gets_everything(problem, monkeypatch):
    answer, point = 6 * 8, 5 * 8  # numbers of eight bytes
    monkeypatch.setattr(ledger, "HISTORY_BYTES", 3 * answer)
    seen = []
    history = run(problem, callback=seen.append).history
    assert sum(record.theta is not None for record in history) == 3
    assert sum(bool(record.phi) for record in history) == 3 * answer // point
    assert all(record.phi for record in seen)
    assert sum(record.theta is not None for record in seen) > 3


def test_a_saved_history_comes_back_whole(problem, tmp_path):
    result = run(problem)
    loaded = zb.Result.load(result.save(tmp_path))
    assert loaded.history == result.history
    for there, here in zip(loaded.history, result.history, strict=True):
        assert (there.phi["rate"], there.error) == (here.phi["rate"], here.error)
        np.testing.assert_array_equal(there.phi["gain"], here.phi["gain"])
        assert list(there.phi["kind"]) == list(here.phi["kind"])  # JSON has no tuples
        assert (there.theta is None) == (here.theta is None)
        if here.theta is not None:
            np.testing.assert_array_equal(there.theta["fall"], here.theta["fall"])


def test_a_table_has_a_column_a_parameter(problem):
    pytest.importorskip("pandas")
    frame = run(problem).to_pandas()
    columns = list(frame.columns)
    assert columns[columns.index("violation") + 1 :] == [
        "rate",
        "gain[0]",
        "gain[1]",
        "kind",
        "theta",
    ]
    row = frame[frame["status"] == "ok"].iloc[0]
    assert row["theta"]["end"] == row["gain[1]"]


def test_a_parameter_called_like_a_column_has_one_of_its_own():
    pytest.importorskip("pandas")
    problem = zb.Problem(zb.Space(loss=zb.Real(0, 1)), lambda phi: phi["loss"] + 1)
    frame = zb.minimize(problem, zb.RandomSearch(), max_solves=3).to_pandas()
    np.testing.assert_allclose(frame["loss"], frame["phi.loss"] + 1)


def test_a_log_tells_of_start_failures_restarts_and_end(problem, caplog):
    with caplog.at_level(logging.INFO, logger="zo_bilevel"):
        result = run(problem, progress=True)
    texts = [record.getMessage() for record in caplog.records]
    assert texts[0] == "random, seed 0 started"
    assert texts[1].startswith("random, seed 0: 1 of 20 solves")  # no terminal: lines in the log
    assert texts[-1] == f"random, seed 0 stopped: {result}"
    failures = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(failures) == result.failures["failed"]
    assert "too fast" in failures[0].getMessage()


def test_a_log_tells_why_a_run_failed(problem, caplog):
    problem = zb.Problem(SPACE, lambda phi: {}[phi["rate"]], problem.outer)
    with pytest.raises(zb.InnerSolverError):
        run(problem)
    assert "random, seed 0 failed: InnerSolverError" in caplog.text


def test_progress_of_ones_own_is_told_each_solve(problem):
    class Kept(Progress):
        def __init__(self):
            self.told = []

        def update(self, share, text, loss):
            self.told.append((share, text, loss))

    kept = Kept()
    result = run(problem, progress=kept)
    shares, texts, losses = zip(*kept.told, strict=True)
    assert shares == tuple((1 + k) / 20 for k in range(20))
    assert f"20 of 20 solves, {result.failures['failed']} failed" in texts[-1]
    assert losses[-1] == result.loss
