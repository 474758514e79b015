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
from zo_bilevel.support.errors import InnerSolverError, InputError, MissingPackageError

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
            (
                ng.p.Dict(a=ng.p.Choice([ng.p.Scalar(lower=0, upper=1), 3])),
                "a has a Scalar as option 0, which no space has: give it a name of its own",
            ),
            (
                ng.p.TransitionChoice([3, ng.p.Dict(b=ng.p.Log(lower=1, upper=2))]),
                "value has a Log as option 1.b, which no space has",
            ),
        ]
        for parametrization, message in cases:
            with pytest.raises(InputError, match=message):
                space_of(parametrization)

    def test_options_that_hold_constants_alone_are_plain_values(self, ng):
        space = space_of(ng.p.Choice([ng.p.Dict(a=1), 3]))
        assert space.parameters == {"value": zb.Choice([{"a": 1}, 3])}

    @pytest.mark.parametrize("as_layer", [False, True])
    @pytest.mark.parametrize(
        ("broken", "name"), [("all", "the parametrization"), ("inner", "inner"), ("a", "inner.a")]
    )
    def test_constraints_are_refused(self, ng, broken, name, as_layer):
        def rule(value):
            return 1.0

        a = ng.p.Scalar(lower=0, upper=1)
        inner = ng.p.Dict(a=a)
        parametrization = ng.p.Instrumentation(3, inner=inner)
        parts = {"all": parametrization, "inner": inner, "a": a}
        parts[broken].register_cheap_constraint(rule, as_layer=as_layer)
        message = f"{name} has a constraint, and constraints are not known here: return a high loss"
        with pytest.raises(InputError, match=message):
            space_of(parametrization)
        with pytest.raises(InputError, match=message):
            AskTell(parametrization, 9)

    def test_bounds_by_the_method_constraint_are_bounds(self, ng):
        scalar = ng.p.Scalar(init=1).set_bounds(0, 3, method="constraint")
        assert space_of(scalar).parameters == {"value": zb.Real(0, 3)}


class TestStartFromNevergrad:
    def test_it_is_the_value_that_was_set(self, ng):
        options = [1, 2, 3, 4]
        cases = [
            (ng.p.TransitionChoice(options), 4),
            (ng.p.TransitionChoice(options, repetitions=2), (4, 1)),
            (ng.p.TransitionChoice(options, ordered=False), 4),
            (ng.p.Choice(options), 3),
            (ng.p.Choice(options, deterministic=True), 3),
            (ng.p.Choice(options, repetitions=3), (2, 4, 1)),
            (ng.p.Choice([(1, 2), (3, 4)], repetitions=2), ((3, 4), (1, 2))),
            (ng.p.Scalar(lower=0, upper=9).set_integer_casting(), 7),
            (ng.p.Log(lower=1e-3, upper=1.0), 0.3),
            (ng.p.Scalar(init=1.0).set_mutation(exponent=2.0).set_bounds(0.1, 10), 5.0),
        ]
        for parametrization, value in cases:
            parametrization.value = value
            candidate = AskTell(parametrization, 9).ask()
            assert candidate.value == (pytest.approx(value) if isinstance(value, float) else value)

    def test_it_is_the_value_given_at_first(self, ng):
        parametrization = ng.p.Dict(
            a=ng.p.Scalar(init=2.5, lower=0, upper=3),
            b=ng.p.Array(init=[1.0, 2.0], lower=0, upper=3),
        )
        candidate = AskTell(parametrization, 9).ask()
        assert candidate.value["a"] == 2.5
        assert candidate.value["b"].tolist() == [1.0, 2.0]

    def test_none_is_an_option_like_any_other(self, ng):
        for choice in (ng.p.Choice(["a", None]), ng.p.TransitionChoice(["a", "b", None])):
            choice.value = None
            assert AskTell(choice, 9).ask().value is None

    def test_a_choice_that_was_not_set_starts_at_its_first_option(self, ng):
        choice = ng.p.Choice([1, 2, 3, 4])
        assert choice.value in (1, 2, 3, 4)  # Nevergrad draws it
        assert AskTell(choice, 9).ask().value == 1

    def test_a_transition_choice_that_was_not_set_starts_in_the_middle(self, ng):
        choice = ng.p.TransitionChoice([1, 2, 3, 4, 5])
        assert AskTell(choice, 9).ask().value == choice.value == 3


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
        with pytest.raises(InputError, match="nothing to recommend: no usable loss was told"):
            optimizer.provide_recommendation()
        candidate = optimizer.ask()
        with pytest.raises(InputError, match="tell first: 1 candidate waits, num_workers is 1"):
            optimizer.ask()
        with pytest.raises(InputError, match="tell takes a number or an inner solution"):
            optimizer.tell(candidate, "good")
        optimizer.tell(candidate, 1.0)
        with pytest.raises(InputError, match="that was not told before"):
            optimizer.tell(candidate, 1.0)
        for loss in (math.nan, None, math.inf, 0.5):
            optimizer.tell(optimizer.ask(), loss)
        assert optimizer.num_tell == 5

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    @pytest.mark.parametrize("method", [None, zb.RandomSearch(), zb.GradientMethod()])
    def test_the_batch_loop_of_nevergrad(self, ng, method, order):
        def loss(value):
            return (value["a"] - 2) ** 2 + abs(value["b"])

        scalars = {name: ng.p.Scalar(lower=-3, upper=5) for name in "ab"}
        optimizer = AskTell(ng.p.Dict(**scalars), 60, num_workers=3, method=method)
        told = []
        for _ in range(optimizer.budget // optimizer.num_workers):
            candidates = [optimizer.ask() for _ in range(optimizer.num_workers)]
            for k in order:
                told.append(loss(candidates[k].value))
                optimizer.tell(candidates[k], told[-1])
            assert loss(optimizer.recommend().value) == min(told)
        assert optimizer.num_ask == optimizer.num_tell == 60
        assert optimizer.recommend().value == optimizer.provide_recommendation().value
        assert min(told) < 0.5

    def test_the_order_of_telling_changes_nothing(self, ng):
        found = []
        for order in ((0, 1, 2), (2, 1, 0)):
            optimizer = AskTell(ng.p.Scalar(lower=1, upper=40).set_integer_casting(), 30, 3)
            values = []
            for _ in range(10):
                candidates = [optimizer.ask() for _ in range(3)]
                values.append([candidate.value for candidate in candidates])
                for k in order:
                    optimizer.tell(candidates[k], abs(candidates[k].value - 17) // 4)
            found.append((values, optimizer.recommend().value))
        assert found[0] == found[1]

    def test_surplus_candidates_are_not_given_to_the_method(self, ng):
        class Three(zb.Method):
            name = "three"
            told = ()

            def rounds(self, search):
                while True:
                    points = [zb.Point(np.full(1, x)) for x in (-1.0, 0.0)]
                    self.told += tuple(e.point.x[0] for e in (yield points))

        method = Three()
        optimizer = AskTell(ng.p.Scalar(lower=-3, upper=3), 30, 4, method=method)
        for _ in range(3):
            candidates = [optimizer.ask() for _ in range(4)]
            assert len({candidate.value for candidate in candidates}) == 4
            for candidate in reversed(candidates):
                optimizer.tell(candidate, candidate.value**2 - candidate.value)
        assert method.told == (-1.0, 0.0) * 3
        assert optimizer.recommend().value > 0  # a surplus candidate, better than both

    def test_as_many_as_workers_and_no_more(self, ng):
        optimizer = AskTell(ng.p.Scalar(lower=-3, upper=5), 30, 3)
        candidates = [optimizer.ask() for _ in range(3)]
        with pytest.raises(InputError, match="tell first: 3 candidates wait, num_workers is 3"):
            optimizer.ask()
        optimizer.tell(candidates[2], 1.0)
        optimizer.ask()
        with pytest.raises(InputError, match="tell first: 3 candidates wait, num_workers is 3"):
            optimizer.ask()

    def test_workers_that_never_wait_for_each_other(self, ng):
        optimizer = AskTell(ng.p.Scalar(lower=-3, upper=5), 90, 3)
        waiting = [optimizer.ask() for _ in range(3)]
        for k in range(87):
            candidate = waiting.pop((7 * k) % 3)
            optimizer.tell(candidate, (candidate.value - 1) ** 2)
            waiting.append(optimizer.ask())
        assert optimizer.recommend().value == pytest.approx(1.0, abs=1e-2)

    def test_a_failed_surplus_candidate_told_first_is_no_mistake(self, ng):
        optimizer = AskTell(ng.p.Scalar(lower=-3, upper=5), 30, 3)
        first, *surplus = [optimizer.ask() for _ in range(3)]
        for candidate in surplus:
            optimizer.tell(candidate, math.nan)
        optimizer.tell(first, 2.0)
        assert optimizer.recommend().value == first.value

    def test_what_was_told_of_an_unfinished_round_counts(self, ng):
        optimizer = AskTell(ng.p.Scalar(lower=-3, upper=5), 5, 4, method=zb.RandomSearch())
        optimizer.tell(optimizer.ask(), 9.0)
        good, _, _ = [optimizer.ask() for _ in range(3)]
        optimizer.tell(good, 1.0)
        assert optimizer.recommend().value == good.value

    def test_once_the_method_has_stopped_it_is_the_recommendation(self, ng):
        class Once(zb.Method):
            name = "once"

            def rounds(self, search):
                yield [zb.Point(search.start)]
                return "enough"

        optimizer = AskTell(ng.p.Scalar(lower=-3, upper=5), 30, 2, method=Once())
        start = optimizer.ask()
        optimizer.tell(start, 1.0)
        assert optimizer.stop_reason == "enough"
        for loss in (2.0, 0.5, math.nan):
            again = [optimizer.ask(), optimizer.ask()]
            assert [candidate.value for candidate in again] == [start.value] * 2
            for candidate in again:
                optimizer.tell(candidate, loss)
        assert optimizer.recommend().value == start.value
        assert optimizer.num_tell == 7


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
            ({"bounds": [(-3, 1)]}, r"x0\[0\] must lie within bounds \[-3, 1\], got 2"),
            ({"bounds": [(3, 1)]}, r"bounds of x0\[0\] must have lower <= upper, got \(3, 1\)"),
            ({"tol": 1e-6}, r"tol is not supported: .* options=\{'ftarget': ...\}"),
            ({"options": {"maxiter": 9}}, r"maxiter is not supported: .*options=\{'maxfev': ...\}"),
            ({"options": {"xtol": 1}}, "unknown option 'xtol'; options are maxfev and ftarget"),
            ({"constraints": [{"type": "eq", "fun": lambda x: x}]}, "constraints are not supp"),
        ],
    )
    def test_bad_input(self, change, message):
        arguments = {"bounds": [(-3, 3)], "method": scipy_method(), **change}
        with pytest.raises(InputError, match=message):
            scipy.optimize.minimize(lambda x: x[0] ** 2, [2.0], **arguments)

    def test_a_plain_callback_gets_the_best_point_as_scipys_own_do(self):
        best, seen = [], []

        def bowl(x):
            best.append(min([(float(x @ x), x.tolist()), *best[-1:]]))
            return float(x @ x)

        def callback(xk):
            assert isinstance(xk, np.ndarray)
            seen.append(xk.tolist())
            xk[:] = 99  # must not reach the search

        found = scipy.optimize.minimize(
            bowl,
            np.ones(3),
            method=scipy_method(zb.GradientMethod(), max_solves=40),
            bounds=[(-2, 2)] * 3,
            callback=callback,
        )
        assert seen == [x for _, x in best]
        assert found.x.tolist() == seen[-1]

    def test_a_callback_of_one_intermediate_result_gets_x_and_fun(self):
        seen = []
        scipy.optimize.minimize(
            lambda x: float(x @ x),
            np.ones(2),
            method=scipy_method(max_solves=20),
            bounds=[(-2, 2)] * 2,
            callback=lambda intermediate_result: seen.append(intermediate_result),
        )
        assert [state.nfev for state in seen] == list(range(1, 21))
        assert all(state.fun == float(state.x @ state.x) for state in seen)
        assert seen[0].fun == 2.0 > seen[-1].fun

    def test_stop_iteration_ends_the_run_with_the_best_so_far(self):
        seen = []

        def callback(xk):
            seen.append(xk)
            if len(seen) == 7:
                raise StopIteration

        calls = []
        found = scipy.optimize.minimize(
            lambda x: calls.append(x) or float(x @ x),
            np.ones(2),
            method=scipy_method(zb.GradientMethod()),
            bounds=[(-2, 2)] * 2,
            callback=callback,
        )
        assert not found.success
        assert (found.status, found.message) == (99, "`callback` raised `StopIteration`.")
        assert found.x.tolist() == seen[-1].tolist()
        assert found.fun == float(found.x @ found.x)
        assert found.nfev == len(calls) >= 7
        assert found.nit >= 1

    def test_derivatives_are_not_used_as_scipy_warns(self):
        def run(fun, **derivatives):
            return scipy.optimize.minimize(
                fun,
                np.ones(2),
                method=scipy_method(max_solves=40),
                bounds=[(-2, 2)] * 2,
                **derivatives,
            )

        def fun(x):
            return float(x @ x)

        gradient = "Method default does not use gradient information"
        with pytest.warns(RuntimeWarning, match=gradient) as caught:
            assert run(fun, jac=lambda x: 2 * x).fun < 1e-6
        assert caught[0].filename == __file__
        with pytest.warns(RuntimeWarning, match=gradient):
            assert run(lambda x: (fun(x), 2 * x), jac=True).fun < 1e-6
        message = "jac=True needs a function that returns its value and its gradient, got float"
        with (
            pytest.warns(RuntimeWarning, match=gradient),
            pytest.raises(InnerSolverError, match=f"none of 1 solves .* {message}"),
        ):
            run(fun, jac=True)
        with pytest.warns(RuntimeWarning, match="does not use Hessian information"):
            run(fun, hess=lambda x: 2 * np.eye(2))
        with pytest.warns(RuntimeWarning, match="does not use Hessian-vector product information"):
            run(fun, hessp=lambda x, p: 2 * p)

    def test_a_variable_between_equal_bounds_is_fixed(self):
        calls = []
        found = scipy.optimize.minimize(
            lambda x: calls.append(x) or float((x - [1, 2, 0]) @ (x - [1, 2, 0])),
            [0.0, 1.5, 1.0],
            method=scipy_method(max_solves=60),
            bounds=[(-3, 3), (1.5, 1.5), (-3, 3)],
            callback=lambda xk: calls.append(xk),
        )
        assert found.x == pytest.approx([1.0, 1.5, 0.0], abs=1e-3)
        assert {x[1] for x in calls} == {1.5}

    def test_all_variables_may_be_fixed(self):
        found = scipy.optimize.minimize(
            lambda x, shift: float(x @ x) + shift,
            [1.0, 2.0],
            args=(1.0,),
            method=scipy_method(),
            bounds=scipy.optimize.Bounds([1, 2], [1, 2]),
        )
        assert (found.x.tolist(), found.fun, found.nfev) == ([1.0, 2.0], 6.0, 1)
        assert found.success


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
