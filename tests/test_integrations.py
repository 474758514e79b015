"""Bridges: TensorBoard, pandas, Optuna, Nevergrad, scipy."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np
import pytest
import scipy.optimize

import zo_bilevel as zb
from zo_bilevel.bridges.nevergrad import AskTell
from zo_bilevel.bridges.nevergrad_space import space_of
from zo_bilevel.bridges.optuna import export_study
from zo_bilevel.bridges.pandas import comparison_frame, history_frame
from zo_bilevel.bridges.scipy import scipy_method
from zo_bilevel.bridges.tensorboard import TensorBoard
from zo_bilevel.errors import InputError, MissingPackageError

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
        kind=zb.Choice("ab"),
    )
    return zb.Problem(space, decay, zb.SquaredError(np.exp(-0.3 * TIMES)), "decay")


@pytest.fixture(scope="module")
def ng():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("nevergrad", reason="needs the extra baselines")


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


class TestSpaceFromNevergrad:
    def test_every_kind_of_parameter(self, ng):
        parametrization = ng.p.Instrumentation(
            ng.p.Scalar(lower=0, upper=1),
            rate=ng.p.Log(lower=1e-3, upper=1.0),
            order=ng.p.Scalar(lower=1, upper=9).set_integer_casting(),
            field=ng.p.Array(shape=(3,)).set_bounds(-3, 3),
            scheme=ng.p.Choice(["euler", "heun"]),
            steps=ng.p.TransitionChoice([1, 2, 4]),
            inner=ng.p.Dict(a=ng.p.Scalar(lower=-2, upper=2), fixed=3),
            constant=5,
        )
        space = zb.Space.from_nevergrad(parametrization)
        rate = space.parameters["rate"]  # Nevergrad keeps the logarithms of its bounds
        assert (rate.lower, rate.upper) == pytest.approx((1e-3, 1.0))
        assert space.parameters == {
            "0": zb.Real(0, 1),
            "rate": zb.Log(rate.lower, rate.upper),
            "order": zb.Integer(1, 9),
            "field": zb.Real(-3, 3, (3,)),
            "scheme": zb.Choice(["euler", "heun"]),
            "steps": zb.Choice([1, 2, 4]),
            "inner.a": zb.Real(-2, 2),
        }

    def test_alone_and_repeated(self, ng):
        assert space_of(ng.p.Scalar(lower=0, upper=1)).names == ("value",)
        repeated = space_of(ng.p.Dict(k=ng.p.Choice([1, 2, 3], repetitions=2)))
        assert repeated.parameters == {"k": zb.Choice([1, 2, 3], (2,))}

    def test_what_no_space_has(self, ng):
        cases = [
            (ng.p.Dict(a=ng.p.Scalar()), "a has no lower bound: give it one by set_bounds"),
            (ng.p.Dict(a=ng.p.Scalar(upper=1)), "a has no lower bound"),
            (ng.p.Dict(a=ng.p.Array(init=[1.0, 2], lower=[0, 0], upper=[3, 5])), "different upper"),
            (ng.p.Dict(a=1), "no parameter that is not constant"),
        ]
        for parametrization, message in cases:
            with pytest.raises(InputError, match=message):
                space_of(parametrization)


class TestAskTell:
    def test_it_takes_the_place_of_an_optimizer_in_a_loop(self, ng):
        def train(size, *, rate, scheme):
            return (size - 0.5) ** 2 + math.log10(rate / 0.01) ** 2 + (scheme == "bad")

        parametrization = ng.p.Instrumentation(
            ng.p.Scalar(lower=0, upper=1),
            rate=ng.p.Log(lower=1e-4, upper=1.0),
            scheme=ng.p.Choice(["good", "bad"]),
        )
        optimizer = AskTell(parametrization, budget=80)
        for _ in range(optimizer.budget):
            candidate = optimizer.ask()
            optimizer.tell(candidate, train(*candidate.args, **candidate.kwargs))
        found = optimizer.provide_recommendation()
        assert train(*found.args, **found.kwargs) < 0.05
        assert found.kwargs["scheme"] == "good"
        assert optimizer.num_tell == 80

    def test_with_an_outer_objective_vectors_are_told_and_vector_methods_work(self, ng):
        parametrization = ng.p.Dict(rate=ng.p.Log(lower=1e-3, upper=10.0))
        target = np.exp(-0.3 * TIMES)
        optimizer = AskTell(parametrization, 15, outer=zb.SquaredError(target))
        found = optimizer.minimize(lambda phi: np.exp(-phi["rate"] * TIMES))
        assert found.value["rate"] == pytest.approx(0.3, rel=1e-4)

    def test_the_numbers_are_those_of_minimize(self, ng):
        parametrization = ng.p.Dict(a=ng.p.Scalar(lower=-3, upper=5))
        optimizer = AskTell(parametrization, 20, method=zb.GradientMethod(), seed=4)
        found = optimizer.minimize(lambda phi: (phi["a"] - 1) ** 2)
        problem = zb.Problem(zb.Space(a=zb.Real(-3, 5)), lambda phi: (phi["a"] - 1) ** 2)
        alone = zb.minimize(problem, zb.GradientMethod(), max_solves=20, seed=4)
        assert found.value["a"] == pytest.approx(alone.phi["a"], abs=1e-9)

    def test_several_at_once_told_in_any_order_give_the_same(self, ng):
        parametrization = ng.p.Dict(a=ng.p.Scalar(lower=-3, upper=5))
        found = []
        for is_reversed in (False, True):
            optimizer = AskTell(parametrization, 24, 4, method=zb.RandomSearch())
            optimizer.tell(first := optimizer.ask(), first.value["a"] ** 2)
            for _ in range(5):
                candidates = [optimizer.ask() for _ in range(4)]
                for candidate in reversed(candidates) if is_reversed else candidates:
                    optimizer.tell(candidate, candidate.value["a"] ** 2)
            found.append(optimizer.provide_recommendation().value["a"])
        assert found[0] == found[1]

    def test_failures_and_bad_input(self, ng):
        optimizer = AskTell(ng.p.Scalar(lower=-3, upper=5), 9, method=zb.RandomSearch())
        with pytest.raises(InputError, match="nothing to recommend: no round has been told"):
            optimizer.provide_recommendation()
        candidate = optimizer.ask()
        with pytest.raises(InputError, match="waits for 1 of the 1 candidates of this round"):
            optimizer.ask()
        with pytest.raises(InputError, match="tell takes a number or an inner solution"):
            optimizer.tell(candidate, "good")
        optimizer.tell(candidate, 1.0)
        with pytest.raises(InputError, match="that was not told before"):
            optimizer.tell(candidate, 1.0)
        for loss in (math.nan, None, math.inf, 0.5):
            optimizer.tell(optimizer.ask(), loss)
        assert optimizer.num_tell == 5


class TestScipy:
    def test_it_is_a_method_of_scipy_optimize_minimize(self):
        calls = []

        def bowl(x, shift):
            calls.append(x)
            return (x[0] - shift) ** 2 + 10 * (x[1] + 0.5) ** 2

        found = scipy.optimize.minimize(
            bowl,
            [2.0, 1.0],
            args=(1.0,),
            method=scipy_method(max_solves=500),
            bounds=[(-3, 3), (-2, 3)],
            options={"maxfev": 80},
        )
        assert found.fun < 1e-6
        assert found.x == pytest.approx([1.0, -0.5], abs=1e-2)
        assert found.nfev == len(calls) <= 80
        assert calls[0].tolist() == [2.0, 1.0]
        assert found.message

    def test_bounds_objects_targets_and_callbacks(self):
        seen = []
        found = scipy.optimize.minimize(
            lambda x: float(x @ x),
            np.ones(3),
            method=scipy_method(zb.RandomSearch(), seed=2),
            bounds=scipy.optimize.Bounds(-2, 2),
            options={"maxfev": 200, "ftarget": 1.0},
            callback=lambda intermediate_result: seen.append(intermediate_result.fun),
        )
        assert found.fun <= 1.0
        assert len(seen) == found.nfev < 200
        assert seen[-1] == found.fun

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"bounds": None}, "bounds must be given: they tell where to search"),
            ({"bounds": [(0, None)]}, "bounds must be finite on both sides"),
            ({"bounds": [(-3, 1)]}, "x0 must lie within bounds, got 2.0"),
            ({"options": {"xtol": 1}}, "unknown option 'xtol'; options are maxfev and ftarget"),
            ({"constraints": [{"type": "eq", "fun": lambda x: x}]}, "constraints are not supp"),
        ],
    )
    def test_bad_input(self, change, message):
        arguments = {"bounds": [(-3, 3)], "method": scipy_method(), **change}
        with pytest.raises(InputError, match=message):
            scipy.optimize.minimize(lambda x: x[0] ** 2, [2.0], **arguments)


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
