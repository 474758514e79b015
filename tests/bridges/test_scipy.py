"""A method of scipy.optimize.minimize."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import zo_bilevel as zb
from zo_bilevel.bridges.scipy import scipy_method
from zo_bilevel.support.errors import InnerSolverError, InputError


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
