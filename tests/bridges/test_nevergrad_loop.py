"""Nevergrad's loop of ask and tell, with our methods."""

from __future__ import annotations

import math

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.bridges.nevergrad import AskTell
from zo_bilevel.support.errors import InputError

TIMES = np.linspace(0, 1, 8)


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
