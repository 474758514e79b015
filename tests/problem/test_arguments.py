"""Arguments of any type that stands for the right thing work; all others are refused by name."""

import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zo_bilevel as zb
from zo_bilevel.adapters.command_line.output import number
from zo_bilevel.support.arguments import finite_number, shape_of, whole_number
from zo_bilevel.support.errors import SolveError

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.integers(-2, 3), max_size=3),
    st.sampled_from([np.int64(3), np.float32(2.5), np.bool_(True), np.arange(3), np.array(4), {}]),
)
PROBLEM = zb.Problem(zb.Space(a=zb.Real(0, 5)), lambda phi: (phi["a"] - 1) ** 2)
CALLS = {
    "Real lower": lambda value: zb.Real(value, 10),
    "Log upper": lambda value: zb.Log(1e-9, value),
    "Integer upper": lambda value: zb.Integer(0, value),
    "Real shape": lambda value: zb.Real(0, 1, shape=value),
    "Choice options": lambda value: zb.Choice(value),
    "max_solves": lambda value: zb.minimize(PROBLEM, zb.RandomSearch(), max_solves=value),
    "seed": lambda value: zb.RandomSearch().start(PROBLEM, value),
    "round_width": lambda value: zb.RandomSearch().start(PROBLEM, round_width=value),
    "initial": lambda value: PROBLEM.space.encode(value),
    "initial a": lambda value: PROBLEM.space.encode({"a": value}),
    "expected_length": lambda value: zb.Problem(
        PROBLEM.space, PROBLEM.inner, expected_length=value
    ),
    "n_jobs": lambda value: zb.Joblib(value),
    "max_batch": lambda value: zb.Batched(value),
    "cost": lambda value: zb.WithCost(1.0, value),
    "target": lambda value: zb.SquaredError(value),
    "weights": lambda value: zb.SquaredError(np.ones(3), weights=value),
    "labels": lambda value: zb.CrossEntropy(value),
}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60, deadline=None)
@given(value=ANYTHING)
def test_anything_works_or_is_refused_by_name(name, value):
    is_long = isinstance(value, int | float) and name in ("max_solves", "Real shape")
    if is_long and 100 < value < np.inf:
        return  # right, and slow
    try:
        CALLS[name](value)
    except zb.InputError as refused:
        message = str(refused)
    else:
        return
    assert name.split()[-1] in message


@given(st.integers(-(2**70), 2**70), st.integers(-5, 5))
def test_whole_numbers_come_through_unchanged(value, least):
    if value >= least:
        assert whole_number("n", value, least) == value
    else:
        with pytest.raises(zb.InputError, match=f"n must be a whole number >= {least}"):
            whole_number("n", value, least)
    assert whole_number("n", np.int64(least)) == least == whole_number("n", float(least))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_come_through_unchanged(value):
    assert finite_number("x", value) == value == finite_number("x", np.array([value]))


def test_shapes_are_plain_tuples():
    for given_shape in (3, [3], (3,), (np.int64(3),), np.array([3])):
        assert shape_of("Real", given_shape) == (3,)
    space = zb.Space(v=zb.Real(0, 1, shape=[3]))
    assert space.encode({"v": [0.1, 0.2, 0.3]}).shape == (3,)


LINE = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: [phi["a"]], zb.SquaredError([0.5]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zb.hypergradient(LINE.inner), "problem must be a zb.Problem, got function"),
        (lambda: zb.hypergradient(LINE, seed=-1), "seed must be a whole number >= 0, got -1"),
        (lambda: zb.hypergradient(LINE, estimator=zb.FG2UZO), "estimator must be one such as"),
        (lambda: zb.hypergradient(LINE).interval("a"), "level must be finite, got 'a'"),
        (lambda: zb.hypergradient(LINE, [1.0]), "initial must be a dict of values by name"),
        (lambda: zb.doctor(LINE, initial=lambda seed: {}), "initial must be a dict of values"),
        (lambda: zb.doctor(LINE, seed=-1), "seed must be a whole number >= 0, got -1"),
        (lambda: zb.doctor(LINE.inner), "problem must be a zb.Problem, got function"),
        (lambda: zb.minimize(LINE, dispatcher=zb.Serial), "dispatcher must be one such as"),
        (lambda: zb.minimize(LINE, dispatcher=4), "dispatcher must be one such as .* got 4"),
        (lambda: zb.minimize(LINE, store="a\0b"), "store must be a path without zero bytes"),
        (lambda: zb.Space(**{"a\x1b[2J": zb.Real(0, 1)}), r"must be printable, got 'a\\x1b"),
        (lambda: zb.GradientMethod(optimizer="adam"), "optimizer refuses"),
        (lambda: zb.BlackBox(lambda x: x, num_parameters=2)([1.0, 2.0]), "must be a torch tensor"),
    ],
)
def test_what_is_of_the_wrong_kind_is_refused_by_name(call, message):
    with pytest.raises(zb.InputError, match=message):
        call()


def test_an_answer_that_does_not_fit_has_no_loss():
    named = zb.SquaredError({"u": [1.0, 2.0], "v": 3.0})
    assert named.loss(np.array([1.0, 2.0, 6.0])) == 3.0
    assert zb.SquaredError(np.ones((2, 2))).loss(np.zeros((2, 2))) == 1.0
    for answer in ([1.0, 2.0], np.zeros((3, 1)), "ab"):
        with pytest.raises(zb.InputError, match=r"the target.s shapes \{u"):
            named.loss(answer)


def test_an_option_that_a_library_does_not_know_is_refused():
    with pytest.raises(zb.UnsupportedProblemError, match="Unknown solver options: fooo"):
        zb.minimize(LINE, zb.Scipy("Nelder-Mead", fooo=1), max_solves=5)
    zb.minimize(LINE, zb.Scipy("Nelder-Mead", xatol=1e-3), max_solves=5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_cost": True}, "max_cost must be finite and > 0, got True"),
        ({"tolerance": True}, "tolerance must be finite, got True"),
        ({"callback": 3}, "callback must be a function of a Record, got 3"),
    ],
)
def test_options_are_refused_before_the_first_solve(option, message):
    problem = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: pytest.fail("it was solved"))
    with pytest.raises(zb.InputError, match=message):
        zb.minimize(problem, max_solves=3, **option)


@pytest.mark.parametrize("upper", [10**7, 2**53, 2**60, 2**60 - 1, 2**63 - 1])
def test_wide_integers_need_no_memory(upper):
    def run(space):
        problem = zb.Problem(
            space, lambda phi: np.array([phi["a"] / upper, 1.0]), zb.SquaredError([0.3, 1.0])
        )
        return zb.minimize(problem, max_solves=5)

    run(zb.Space(a=zb.Integer(0, 9)))  # imports take memory too
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    space = zb.Space(a=zb.Integer(0, upper))
    found = run(space)
    assert 0 <= found.phi["a"] <= upper
    assert space.decode(space.upper) == {"a": upper}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kilobytes


@pytest.mark.parametrize("bounds", [(0, 2**63), (0, 2**64), (-(2**63) - 1, 0), (0, 10**400)])
def test_integers_fit_64_bits(bounds):
    for shape in ((), (2,)):
        with pytest.raises(zb.InputError, match=r"Integer (lower|upper) must fit 64 bits, got"):
            zb.Integer(*bounds, shape=shape)


@pytest.mark.parametrize("lower", [0, 2**52, 2**53, 2**53 + 1, 2**60, -(2**60) - 3, 10**18])
@pytest.mark.parametrize("method", [None, zb.GaussNewton(), zb.TrustRegion()])
def test_large_integers_are_all_searched(lower, method):
    space = zb.Space(n=zb.Integer(lower, lower + 9))
    assert [space.decode(space.encode({"n": lower + k}))["n"] for k in range(10)] == [
        lower + k for k in range(10)
    ]
    problem = zb.Problem(space, lambda phi: float(phi["n"] - lower - 3), zb.SquaredError(0.0))
    result = zb.minimize(problem, method, max_solves=40)
    assert result.phi == {"n": lower + 3}


WIDE = [(0, 2**48 + 1), (-5, 2**50), (0, 2**53), (0, 2**60 - 1), (-(2**63), 2**63 - 1)]


@pytest.mark.parametrize(("lower", "upper"), WIDE)
@given(share=st.floats(-3, 3))
def test_integers_seen_are_encoded_exactly_at_any_width(lower, upper, share):
    for shape in ((), (2,)):
        space = zb.Space(n=zb.Integer(lower, upper, shape=shape))
        seen = space.decode(np.full(space.size, share))
        assert np.all((np.asarray(seen["n"]) >= lower) & (np.asarray(seen["n"]) <= upper))
        assert np.array_equal(space.decode(space.encode(seen))["n"], seen["n"])
    assert space.decode(space.upper)["n"].tolist() == [upper] * 2


@pytest.mark.parametrize(("lower", "upper"), WIDE)
def test_no_method_claims_to_have_solved_all_of_a_wide_range(lower, upper):
    space = zb.Space(n=zb.Integer(lower, upper))
    problem = zb.Problem(space, lambda phi: phi["n"] / upper, zb.SquaredError(0.3))
    for method in (zb.TrustRegion(), zb.GaussNewton(), zb.RandomSearch()):
        assert "every setting" not in zb.minimize(problem, method, max_solves=40).stop_reason


@pytest.mark.parametrize(
    "options", [{"a", "b"}, frozenset("ab"), {"a": 1, "b": 2}, "ab", b"ab", 3, None]
)
def test_options_without_an_order_are_refused(options):
    with pytest.raises(zb.InputError, match="Choice options must be a list of options, got a"):
        zb.Choice(options)


def test_options_may_be_arrays_and_stay_as_they_are():
    mine = [[1, 2], np.zeros(2), {"k": [3]}, np.ones(2)]
    choice = zb.Choice(mine)
    mine[0].append(9)
    space = zb.Space(c=choice)
    for option in choice.options:
        given_out = space.decode(space.encode({"c": option}))["c"]
        assert repr(given_out) == repr(option)
        if isinstance(given_out, list):
            given_out.append(7)
        elif isinstance(given_out, dict):
            given_out["k"].append(7)
        else:
            given_out[:] = 7.0
    assert repr(list(choice.options)) == repr([[1, 2], np.zeros(2), {"k": [3]}, np.ones(2)])
    with pytest.raises(zb.InputError, match="must differ"):
        zb.Choice([np.zeros(2), np.ones(2), np.zeros(2)])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5D-3", 1.5e-3),
        ("1.234-103", 1.234e-103),
        ("-1.234+103", -1.234e103),
        ("1.0Q+2", 100.0),
        ("1.#INF", np.inf),
        ("-1.#INF00", -np.inf),
        ("Infinity", np.inf),
        (" 7 ", 7.0),
    ],
)
def test_numbers_as_other_languages_write_them(text, value):
    assert number(text, "line 1") == value


@pytest.mark.parametrize(
    "text", ["1.#QNAN", "-1.#IND", "1.#IND00", "NaN", "-nan(ind)", "1.#SNAN", "nan"]
)
def test_words_for_no_number_are_nan(text):
    assert np.isnan(number(text, "line 1"))


@pytest.mark.parametrize("text", ["*****", "1-2", "1.2.3", "", "12-Nov", "1e", "0x10"])
def test_other_words_are_refused_with_their_place(text):
    with pytest.raises(SolveError, match="line 1"):
        number(text, "line 1")


@pytest.mark.parametrize("dispatcher", [zb.Serial(), zb.Batched(), zb.Joblib(1)])
def test_every_dispatcher_closes_at_the_end_of_a_with_block(dispatcher):
    with dispatcher as same:
        assert same is dispatcher


def test_names_that_collide_where_arrays_are_written_out_are_refused():
    for order in (1, -1):
        named = {"a": zb.Real(0, 1, 2), "a[0]": zb.Real(0, 1)}
        with pytest.raises(
            zb.InputError, match=r"'a\[0\]' is named as one number of the array 'a'"
        ):
            zb.Space(dict(list(named.items())[::order]))
    assert zb.Space({"a": zb.Real(0, 1), "a[0]": zb.Real(0, 1)}).size == 2
