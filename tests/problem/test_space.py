"""Space: names, bounds, scaling, exact round trips."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zo_bilevel as zb
from zo_bilevel.problem.space import HALF_RANGE

FINITE = st.floats(-1e12, 1e12, allow_nan=False)


@st.composite
def parameters(draw):
    kind = draw(st.sampled_from(["real", "log", "integer", "choice"]))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    if kind == "real":
        lower = draw(FINITE)
        return zb.Real(lower, lower + draw(st.floats(1e-3, 1e12)), shape)
    if kind == "log":
        lower = draw(st.floats(1e-200, 1e100))
        return zb.Log(lower, lower * draw(st.floats(1.01, 1e100)), shape)
    if kind == "integer":
        lower = draw(st.integers(-1000, 1000))
        return zb.Integer(lower, lower + draw(st.integers(1, 1000)), shape)
    return zb.Choice(draw(st.lists(st.text(), min_size=2, max_size=5, unique=True)), shape)


@st.composite
def spaces_and_vectors(draw):
    space = zb.Space(
        draw(
            st.dictionaries(
                st.text(min_size=1).filter(str.isprintable), parameters(), min_size=1, max_size=4
            )
        )
    )
    beyond = st.floats(-2 * HALF_RANGE, 2 * HALF_RANGE)
    x = np.array(draw(st.lists(beyond, min_size=space.size, max_size=space.size)))
    return space, x


def same(one, other):
    return all(np.array_equal(np.asarray(one[k]), np.asarray(other[k])) for k in one)


@settings(max_examples=150, deadline=None)
@given(spaces_and_vectors())
def test_decoded_values_respect_bounds_and_survive_the_round_trip(case):
    space, x = case
    phi = space.decode(x)
    for name, parameter in space.parameters.items():
        if isinstance(parameter, zb.Choice):
            assert all(item in parameter.options for item in np.ravel(np.array(phi[name], object)))
        else:
            values = np.asarray(phi[name])
            assert (values >= parameter.lower).all()
            assert (values <= parameter.upper).all()
    again = space.encode(phi)
    assert (np.abs(again) <= HALF_RANGE).all()
    assert same(phi, space.decode(again))


def test_bounds_are_reached_exactly():
    space = zb.Space(a=zb.Log(1e-4, 10.0), b=zb.Real(-0.1, 0.3), c=zb.Integer(-2, 7))
    low, high = space.decode(space.lower), space.decode(space.upper)
    assert low == {"a": 1e-4, "b": -0.1, "c": -2}
    assert high == {"a": 10.0, "b": 0.3, "c": 7}
    assert space.decode(space.encode(low)) == low
    assert space.decode(space.encode(high)) == high


def test_missing_names_take_the_middle():
    space = zb.Space(a=zb.Log(1e-2, 1e2), b=zb.Real(0, 4), c=zb.Choice(["x", "y"]))
    phi = space.decode(space.encode({"b": 1.0}))
    assert phi["a"] == pytest.approx(1.0)
    assert phi["b"] == 1.0
    assert phi["c"] == "x"


def test_every_integer_owns_an_equal_share():
    space = zb.Space(k=zb.Integer(1, 4))
    x = np.linspace(-HALF_RANGE, HALF_RANGE, 4001)[:, None]
    counts = np.bincount(space.values(x)[:, 0].astype(int), minlength=5)[1:]
    assert counts.min() >= 1000


def test_torch_decode_agrees_with_numpy_and_differentiates():
    import torch

    space = zb.Space(a=zb.Log(1e-4, 10.0), b=zb.Real(-1, 3, shape=(2, 2)))
    x = np.array([0.3, -1.0, 0.0, 2.0, 2.9])
    tensor = torch.tensor(x, requires_grad=True)
    phi = space.decode_torch(tensor, x)
    plain = space.decode(x)
    assert phi["a"].item() == pytest.approx(plain["a"], rel=1e-14)
    assert np.allclose(phi["b"].detach().numpy(), plain["b"], rtol=1e-14)
    (slope,) = torch.autograd.grad(phi["a"], tensor)
    assert float(slope[0]) == pytest.approx(plain["a"] * math.log(1e5) / 6, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zb.Space(), "space must have at least one parameter, got none"),
        (lambda: zb.Real(2, 1), "Real lower must be < upper, got lower=2, upper=1"),
        (lambda: zb.Real(1, 1), "Real lower must be < upper, got lower=1, upper=1: .* zb.Fixed"),
        (lambda: zb.Integer(3, 3), r"upper=3: a single value is zb\.Fixed\(3\)"),
        (lambda: zb.Real(0, -math.inf), "Real upper must be finite, got -inf"),
        (lambda: zb.Real(math.nan, 1), "Real lower must be finite, got nan"),
        (lambda: zb.Log(0.0, 1.0), r"Log lower must be > 0, got 0\.0"),
        (lambda: zb.Log(-1.0, 1.0), r"Log lower must be > 0, got -1\.0"),
        (lambda: zb.Integer(1.5, 3), "Integer lower must be a whole number, got 1.5"),
        (
            lambda: zb.Choice(["a"]),
            r"at least 2 options, got \['a'\]: .* zb\.Fixed\('a'\)",
        ),
        (lambda: zb.Choice(["a", "a"]), "Choice options must differ, got 'a' twice"),
        (lambda: zb.Real(0, 1, (0,)), "Real shape must hold integers >= 1"),
        (lambda: zb.Real(0, 1, correlation_length=0.1), "needs a shape of 1 to 3 axes"),
        (lambda: zb.Real(0, 1, (4,), -1.0), r"correlation_length must be finite and > 0, got -1"),
        (
            lambda: zb.Space(a="3"),
            "parameter 'a' must be Real, Log, Integer, Choice, Fixed, Tied or a number, got '3'",
        ),
        (lambda: zb.Space(a=zb.Real(0, 1)).encode({"b": 1}), "unknown parameter 'b'"),
        (lambda: zb.Space(nu=zb.Real(0, 1)).encode({"mu": 1}), "did you mean 'nu'"),
        (lambda: zb.Space(a=zb.Real(0, 1)).encode({"a": 2}), r"a must lie in \[0, 1\], got 2"),
        (lambda: zb.Space(a=zb.Real(0, 1)).encode({"a": math.nan}), r"a must lie in \[0, 1\]"),
        (lambda: zb.Space(a=zb.Real(0, 1)).encode({"a": [1.0]}), r"a must have shape \(\)"),
        (lambda: zb.Space(a=zb.Integer(0, 3)).encode({"a": 1.5}), "a must be a whole number"),
        (
            lambda: zb.Space(a=zb.Choice(["x", "y"])).encode({"a": "z"}),
            r"a must be one of \['x', 'y'\]",
        ),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(zb.InputError, match=message):
        make()
