"""Spaces and starts of Nevergrad, read as ours."""

from __future__ import annotations

import pytest

import zo_bilevel as zb
from zo_bilevel.bridges.nevergrad import AskTell
from zo_bilevel.bridges.nevergrad_space import space_of
from zo_bilevel.support.errors import InputError


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
