"""Fixed and tied parameters: given to the solver, never searched."""

import json

import lmfit
import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.estimators.derivatives import named_tangents, scaled_gradient
from zo_bilevel.problem.expression import Expression
from zo_bilevel.problem.space_text import space_from_text, space_to_text


def mixed_space():
    return zb.Space(
        late=zb.Tied("first + 1"),
        a=zb.Real(0, 2),
        weights=np.array([1.0, 2.0]),
        first=zb.Tied("2 * a ** 2 / sqrt(c)"),
        field=zb.Log(0.1, 10.0, shape=3),
        edge=zb.Tied("field[-1]"),
        total=zb.Tied("weights * a"),
        mode=zb.Fixed("fast"),
        c=4,
    )


def test_values_are_in_phi_in_the_declared_order_and_not_in_x():
    space = mixed_space()
    assert space.size == 4
    assert list(space.parameters) == ["a", "field"]
    phi = space.decode(space.encode({"a": 1.5, "field": [1.0, 2.0, 3.0]}))
    assert list(phi) == list(space.names)
    assert phi["first"] == 2.25
    assert phi["late"] == 3.25
    assert (phi["c"], type(phi["c"]), phi["mode"]) == (4, int, "fast")
    assert phi["edge"] == phi["field"][2]
    np.testing.assert_array_equal(phi["total"], [1.5, 3.0])
    np.testing.assert_array_equal(space.decode(space.encode(phi))["field"], phi["field"])


def test_a_solver_cannot_change_a_fixed_array():
    space = mixed_space()
    space.decode(np.zeros(4))["weights"][:] = 9.0
    np.testing.assert_array_equal(space.decode(np.zeros(4))["weights"], [1.0, 2.0])


def test_a_run_reports_them_and_a_store_reads_them_back(tmp_path):
    target = zb.SquaredError([1.0, 2.0, 0.25])

    def simulate(phi):
        return [phi["a"], phi["b"], phi["c"]]

    problem = zb.Problem(zb.Space(a=zb.Real(0, 4), b=zb.Tied("2 * a"), c=0.25), simulate, target)
    result = zb.minimize(problem, max_solves=20, store=tmp_path / "runs.sqlite")
    assert result.phi == pytest.approx({"a": 1.0, "b": 2.0, "c": 0.25}, abs=1e-8)
    assert result.x.shape == (1,)
    again = space_from_text(space_to_text(problem.space))
    assert again.decode(result.x) == result.phi
    other = zb.Problem(zb.Space(a=zb.Real(0, 4), b=zb.Tied("2 * a"), c=0.5), simulate, target)
    found = zb.minimize(other, max_solves=20, store=tmp_path / "runs.sqlite")
    assert found.loss == pytest.approx(0.25**2 / 3)  # no stored solve of c = 0.25 was taken


def test_derivatives_go_through_ties_as_the_chain_rule_says():
    space, x = mixed_space(), np.array([0.5, -1.0, 0.0, 2.0])
    phi = space.decode(x)
    rates = space.rates(x)
    tangents = named_tangents(space, x, np.eye(4))
    assert set(tangents) == {"a", "field", "late", "first", "edge", "total"}
    slope = 4 * phi["a"] / np.sqrt(4) * rates[0]
    np.testing.assert_allclose(tangents["late"], [slope, 0, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(tangents["edge"], [0, 0, 0, rates[3]], rtol=1e-12)
    np.testing.assert_allclose(tangents["total"][0], np.array([1.0, 2.0]) * rates[0], rtol=1e-12)
    rng = np.random.default_rng(0)
    named = {name: rng.standard_normal(space.shapes[name]) for name in tangents}
    pulled = scaled_gradient(space, x, named)
    pushed = sum(t.reshape(4, -1) @ np.ravel(named[n]) for n, t in tangents.items())
    np.testing.assert_allclose(pulled, pushed, rtol=1e-12)


def test_a_torch_objective_sees_them_with_their_derivatives():
    space = zb.Space(a=zb.Real(0, 6), b=zb.Tied("a ** 2"), c=3.0)
    problem = zb.Problem(
        space,
        lambda phi: [phi["a"]],
        lambda theta, phi: (theta[0] * phi["c"] + phi["b"]).sum(),
    )
    gradient = zb.hypergradient(problem, {"a": 2.0})
    assert float(gradient["a"]) == pytest.approx(3.0 + 2 * 2.0, rel=1e-5)


def test_space_fixed_takes_values_and_formulas():
    space = zb.Space(a=zb.Real(0, 1), b=zb.Real(0, 1), n=zb.Integer(1, 4), m=zb.Choice(["x", "y"]))
    fixed = space.fixed({"b": "a / 2", "n": 3, "m": "y"})
    assert fixed.decode(fixed.encode({"a": 0.5})) == {"a": 0.5, "b": 0.25, "n": 3, "m": "y"}


LINE = """
import zo_bilevel as zb
space = zb.Space(a=zb.Real(0, 4), b=zb.Real(0, 4))
problem = zb.Problem(space, lambda phi: [phi["a"], phi["b"]], zb.SquaredError([1.0, 3.0]))
"""


def test_fix_on_the_command_line(tmp_path):
    from click.testing import CliRunner

    from zo_bilevel.cli.main import main

    (tmp_path / "line.py").write_text(LINE)
    words = ["run", f"{tmp_path / 'line.py'}:problem", "--max-solves", "20", "--json", "--fix"]
    found = CliRunner().invoke(main, [*words, "b=2 * a"])
    phi = json.loads(found.stdout)["phi"]
    assert phi["a"] == pytest.approx(7 / 5, abs=1e-6)  # of (a - 1)^2 + (2 a - 3)^2
    assert phi["b"] == 2 * phi["a"]
    refused = CliRunner().invoke(main, [*words, "b=5"])
    assert refused.exit_code == 2
    assert "b must lie in [0, 4], got 5" in refused.stderr


def test_the_space_of_lmfit_has_its_bounds_values_and_ties():
    given = lmfit.Parameters()
    given.add("amplitude", value=2.0, min=0, max=10)
    given.add("width", value=1.0, min=0.1, max=5)
    given.add("offset", value=0.5, vary=False)
    given.add("height", expr="amplitude / (width * sqrt(2 * pi))")
    space = zb.Space.from_lmfit(given)
    assert list(space.parameters) == ["amplitude", "width"]
    phi = space.decode(space.encode(given.valuesdict()))
    assert phi == pytest.approx(dict(given.valuesdict()), rel=1e-12)
    given.add("odd", expr="amplitude if width > 1 else 0")
    with pytest.raises(zb.InputError, match="from_lmfit: parameter 'odd': an expression must be"):
        zb.Space.from_lmfit(given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zb.Space(a=1.0), "at least one parameter, got only fixed and tied ones"),
        (lambda: zb.Fixed(np.nan), "Fixed value must be finite, got nan"),
        (lambda: zb.Tied("3"), "Tied formula must name a parameter, got '3'"),
        (lambda: zb.Tied("a +"), "an expression must be a formula, got 'a \\+'"),
        (lambda: zb.Tied("open(a)"), r"got 'open\(a\)'"),
        (lambda: zb.Tied("a.real"), "got 'a.real'"),
        (lambda: zb.Space(a=zb.Real(0, 1), b=zb.Tied("A")), "Tied 'b': unknown parameter 'A'"),
        (
            lambda: zb.Space(a=zb.Real(0, 1), b=zb.Tied("c"), c=zb.Tied("b")),
            "must not depend on themselves, got a circle of 'b', 'c'",
        ),
        (
            lambda: zb.Space(a=zb.Real(0, 1, 2), b=np.zeros(3), c=zb.Tied("a + b")),
            r"the expression 'a \+ b' cannot be computed",
        ),
        (
            lambda: zb.Space(a=zb.Real(0, 1), b=0.3).encode({"b": 0.4}),
            "b is fixed at 0.3, got 0.4",
        ),
        (
            lambda: zb.Space(a=zb.Real(0, 1), b=zb.Tied("2 * a")).encode({"a": 0.5, "b": 2}),
            r"b is tied to '2 \* a', 1.0, got 2",
        ),
        (lambda: zb.Space(a=zb.Real(0, 1)).fixed({"b": 1}), "fixed: unknown parameter 'b'"),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(zb.InputError, match=message):
        make()


def test_a_formula_without_a_value_gives_nan_or_infinity_and_raises_nothing():
    assert Expression("1 / a").evaluate({"a": 0.0}) == np.inf
    assert np.isnan(Expression("log(-a)").evaluate({"a": 1}))
    assert Expression("3 * n").evaluate({"n": 2}) == 6


@pytest.mark.parametrize(
    ("tie", "given"),
    [
        ("cumsum(w)", [1.0, 3.0]),
        ("exp(w) / (1 + sum(exp(w)))", [0.2, 0.5]),
        ("w / sqrt(w[0])", [1.2, 0.4]),
    ],
)
def test_a_start_may_be_given_by_the_tied_values(tie, given):
    space = zb.Space(w=zb.Real(-5, 5, shape=(2,)), tied=zb.Tied(tie), other=zb.Integer(1, 9))
    x = space.encode({"tied": given, "other": 7})
    phi = space.decode(x)
    np.testing.assert_allclose(phi["tied"], given, rtol=1e-9)
    assert phi["other"] == 7
    np.testing.assert_array_equal(space.decode(space.encode(phi))["w"], phi["w"])


@pytest.mark.parametrize("bad", [[3.0, 1.0], [1.0, 30.0], [1.0], "x", [np.nan, 3.0]])
def test_tied_values_that_cannot_be_are_refused(bad):
    space = zb.Space(step=zb.Log(0.01, 10, shape=(2,)), rate=zb.Tied("cumsum(step)"))
    with pytest.raises(zb.InputError, match="rate is tied to 'cumsum"):
        space.encode({"rate": bad})


def test_a_running_sum_is_that_of_numpy_and_of_torch():
    import torch

    rising, given = Expression("cumsum(a)"), np.array([1.0, 2.0, 4.0])
    np.testing.assert_array_equal(rising.evaluate({"a": given}), [1.0, 3.0, 7.0])
    found = rising.evaluate({"a": torch.as_tensor(given)})
    np.testing.assert_array_equal(found.numpy(), [1.0, 3.0, 7.0])
