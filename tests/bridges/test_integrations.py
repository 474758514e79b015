"""Results as pandas tables, TensorBoard logs and Optuna studies."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.bridges.nevergrad_space import space_of
from zo_bilevel.bridges.optuna import export_study
from zo_bilevel.bridges.pandas import comparison_frame, history_frame
from zo_bilevel.bridges.tensorboard import TensorBoard
from zo_bilevel.support.errors import InputError, MissingPackageError

TIMES = np.linspace(0, 1, 8)


def decay(phi):
    if phi["rate"] > 9:
        raise RuntimeError("too fast")
    return phi["scale"][0] * np.exp(-phi["rate"] * TIMES)


def decay_problem():
    space = zb.Space(
        rate=zb.Log(1e-3, 10.0),
        scale=zb.Real(0, 2, (2,)),
        order=zb.Integer(1, 3),
        kind=zb.Choice(["a", "b"]),
    )
    return zb.Problem(space, decay, zb.SquaredError(np.exp(-0.3 * TIMES)), "decay")


class TestPandas:
    def test_the_history_is_a_table_indexed_by_solve(self):
        pytest.importorskip("pandas")
        result = zb.minimize(decay_problem(), zb.RandomSearch(), max_solves=12)
        frame = result.to_pandas()
        assert frame.index.tolist() == list(range(1, 13))
        assert frame["best_loss"].iloc[-1] == result.loss
        assert list(frame.columns) == list(history_frame(result).columns)
        assert set(frame["status"]) <= {"ok", "failed"}

    def test_a_comparison_is_a_row_a_run(self):
        pytest.importorskip("pandas")
        found = zb.compare(
            decay_problem(),
            {"r": zb.RandomSearch()},
            max_solves=5,
            seeds=range(3),
            target_loss=0.1,
        )
        frame = comparison_frame(found)
        assert frame["seed"].tolist() == [0, 1, 2]
        assert frame["loss"].tolist() == [run.loss for run in found.runs]
        assert "rate" in frame
        assert "scale" not in frame


class TestTensorBoard:
    def test_every_solve_is_written(self, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        with TensorBoard(tmp_path / "logs") as board:
            result = zb.minimize(decay_problem(), zb.RandomSearch(), max_solves=9, callback=board)
        events = EventAccumulator(str(tmp_path / "logs")).Reload()
        best = [event.value for event in events.Scalars("best loss")]
        assert best == pytest.approx([record.best_loss for record in result.history])
        assert [event.step for event in events.Scalars("cost")] == list(range(1, 10))

    def test_each_run_of_a_comparison_has_a_folder(self, tmp_path):
        pytest.importorskip("tensorboard")
        with TensorBoard(tmp_path) as board:
            methods = {"a/b": zb.RandomSearch(), "c": zb.RandomSearch()}
            arguments = {"max_solves": 3, "seeds": range(2), "callback": board.compare}
            zb.compare(decay_problem(), methods, **arguments)
        folders = sorted(path.name for path in tmp_path.iterdir())
        assert folders == ["a-b-seed-0", "a-b-seed-1", "c-seed-0", "c-seed-1"]


class TestOptuna:
    @pytest.fixture
    def store(self, tmp_path):
        pytest.importorskip("optuna").logging.disable_default_handler()
        path = tmp_path / "runs.sqlite"
        zb.minimize(decay_problem(), zb.RandomSearch(), max_solves=40, seed=3, store=path)
        return path

    def test_every_solve_is_a_trial_and_the_best_is_the_best(self, store):
        study = export_study(store, 1)
        result = zb.minimize(decay_problem(), zb.RandomSearch(), max_solves=40, seed=3)
        assert len(study.trials) == 40
        assert study.best_value == pytest.approx(result.loss)
        assert study.best_params["rate"] == pytest.approx(result.phi["rate"])
        assert study.best_params["scale[1]"] == pytest.approx(result.phi["scale"][1])
        assert set(study.best_params) == {"rate", "scale[0]", "scale[1]", "order", "kind"}
        failed = [t for t in study.trials if t.state.name == "FAIL"]
        assert len(failed) == result.failures.get("failed", 0)
        assert all("too fast" in trial.user_attrs["error"] for trial in failed)

    def test_a_study_of_that_name_and_a_run_that_is_none(self, store, tmp_path):
        storage = f"sqlite:///{tmp_path / 'study.db'}"
        export_study(store, 1, storage=storage, study_name="mine")
        with pytest.raises(InputError, match="there is a study 'mine' in that storage"):
            export_study(store, 1, storage=storage, study_name="mine")
        with pytest.raises(InputError, match="has no run 7"):
            export_study(store, 7)


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("tensorboard", "integrations", lambda path: TensorBoard(path)),
        (
            "pandas",
            "integrations",
            lambda path: zb.minimize(decay_problem(), zb.RandomSearch(), max_solves=1).to_pandas(),
        ),
        ("optuna", "integrations", lambda path: export_study(path / "none.sqlite", 1)),
        ("nevergrad", "baselines", lambda path: space_of(None)),
    ],
)
def test_without_a_package_the_extra_is_named(tmp_path, monkeypatch, module, extra, use):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=rf'pip install "zo-bilevel\[{extra}\]"'):
        use(tmp_path)
