"""Masks, shapes and labels of target, weights and theta line up or are refused."""

import numpy as np
import pytest

import zo_bilevel as zb

pandas = pytest.importorskip("pandas")
X = np.arange(4.0)
SPACE = zb.Space(a=zb.Real(0, 5), b=zb.Real(0, 5))
TRUTH = {"a": 1.3, "b": 2.0}


def field(phi):
    return phi["a"] * X[:, None] + phi["b"] * X[None, :] ** 2


def found(inner, outer):
    phi = zb.minimize(zb.Problem(SPACE, inner, outer), max_solves=30).phi
    return phi["a"], phi["b"]


def test_missing_observations_have_no_weight():
    hole = np.zeros((4, 4), bool)
    hole[1, 2] = True
    broken = np.where(hole, 1e4, field(TRUTH))
    for target in (np.ma.masked_array(broken, hole), np.where(hole, np.nan, field(TRUTH))):
        assert found(field, zb.SquaredError(target)) == pytest.approx((1.3, 2.0))
    # the mean is over the values that are there
    assert zb.SquaredError([1.0, np.nan, 3.0]).loss(np.array([0.0, 9.0, 0.0])) == 5.0
    with pytest.raises(zb.InputError, match="at least one value"):
        zb.SquaredError([np.nan, np.nan])
    with pytest.raises(zb.InputError, match="0 wherever target is given"):
        zb.SquaredError([np.nan, 1.0], weights=[1.0, 0.0])


def test_parts_line_up_by_name_whatever_their_order():
    def parts(phi):
        return {"u": phi["a"] * X, "v": np.full(2, phi["b"])}

    target = {"v": np.full(2, 2.0), "u": 1.3 * X}
    assert found(parts, zb.SquaredError(target)) == pytest.approx((1.3, 2.0))
    calls = []

    def in_turn(phi):
        calls.append(1)
        return dict(reversed(parts(phi).items())) if len(calls) % 2 else parts(phi)

    assert found(in_turn, zb.SquaredError(target)) == pytest.approx((1.3, 2.0))


def test_weights_match_the_target_by_name():
    outer = zb.SquaredError({"u": X, "v": 1.0}, weights={"v": 0.0, "u": 2.0})
    assert outer.weights.tolist() == [2.0, 2.0, 2.0, 2.0, 0.0]
    with pytest.raises(zb.InputError, match="names of target, u, v, got u, w"):
        zb.SquaredError({"u": X, "v": 1.0}, weights={"u": 1.0, "w": 1.0})
    with pytest.raises(zb.InputError, match=r"shape of target, shapes .* got shapes"):
        zb.SquaredError({"u": X, "v": 1.0}, weights={"u": np.ones(3), "v": 1.0})


@pytest.mark.parametrize("argument", ["weights", "sigma"])
def test_weights_and_sigma_have_the_labels_and_the_shape_of_the_target(argument):
    series = pandas.Series([1.0, 2.0, 3.0], index=list("abc"))
    plain = zb.SquaredError(series, **{argument: [1.0, 2.0, 4.0]}).weights
    assert (zb.SquaredError(series, **{argument: 2.0 ** (series - 1)}).weights == plain).all()
    with pytest.raises(zb.InputError, match=f"{argument} and target .* labels c, b, a, not a, b"):
        zb.SquaredError(series, **{argument: series[::-1]})
    table = pandas.DataFrame(np.ones((2, 3)), columns=list("uvw"))
    with pytest.raises(zb.InputError, match=f"{argument} and target .* axis 1 has the labels v"):
        zb.SquaredError(table, **{argument: table[["v", "u", "w"]]})
    with pytest.raises(zb.InputError, match=rf"{argument} must .* \(2, 3\), got shape \(3, 2\)"):
        zb.SquaredError(np.ones((2, 3)), **{argument: np.ones((3, 2))})
    with pytest.raises(zb.InputError, match=f"{argument} and target .* 'y', axis 0 has the labels"):
        zb.SquaredError({"y": series}, **{argument: {"y": series[::-1]}})
    with pytest.raises(zb.InputError, match=f"{argument} must .* have the shape of target"):
        zb.SquaredError(
            {"y": table}, **{argument: {"y": pandas.Series([1.0, 2.0, 3.0], list("wvu"))}}
        )
    rows = zb.SquaredError({"y": np.ones((2, 2))}, **{argument: {"y": [[1.0], [2.0]]}}).weights
    assert rows.tolist() == plain[[0, 0, 1, 1]].tolist()


def test_tables_are_compared_by_their_labels():
    table = pandas.DataFrame(field(TRUTH), columns=list("uvwz"))

    def as_table(phi):
        return pandas.DataFrame(field(phi), columns=list("uvwz"))

    assert found(as_table, zb.SquaredError(table)) == pytest.approx((1.3, 2.0))
    assert found(field, zb.SquaredError(table)) == pytest.approx((1.3, 2.0))
    with pytest.raises(zb.InnerSolverError, match="axis 1 has the labels u, v, w, z, not z, w"):
        found(as_table, zb.SquaredError(table[list("zwvu")]))
    series = pandas.Series(field(TRUTH)[:, 1], index=X / 10)
    with pytest.raises(zb.InnerSolverError, match=r"axis 0 has the labels 0\.0, 0\.1"):
        found(lambda phi: pandas.Series(field(phi)[:, 1], X / 10), zb.SquaredError(series[::-1]))


@pytest.mark.parametrize("length", [4, 40])
def test_labels_that_are_a_count_in_another_order_are_no_count(length):
    x = np.arange(float(length))

    def series(phi):
        return pandas.Series(phi["a"] * x + phi["b"] * x**2, index=x)

    target = series(TRUTH)
    assert found(series, zb.SquaredError(target)) == pytest.approx((1.3, 2.0))
    with pytest.raises(zb.InnerSolverError, match=r"labels 0, 1, \.\.\., not rearranged: "):
        found(series, zb.SquaredError(target[::-1]))
    with pytest.raises(zb.InputError, match="weights and target are labelled differently"):
        zb.SquaredError(target, weights=pandas.Series(x, index=x)[::-1])


def test_a_later_solve_with_other_labels_has_failed():
    calls = []

    def shuffled(phi):
        calls.append(1)
        columns = list("uvwz") if len(calls) != 3 else list("vuwz")
        return pandas.DataFrame(field(phi), columns=list("uvwz"))[columns]

    problem = zb.Problem(SPACE, shuffled, lambda theta, phi: float(abs(theta).sum()))
    result = zb.minimize(problem, zb.RandomSearch(), max_solves=5)
    assert result.failures == {"wrong_shape": 1}


def test_arrays_of_xarray_are_compared_by_dimension():
    xarray = pytest.importorskip("xarray")

    def grid(phi):
        return xarray.DataArray(field(phi), dims=("x", "y"))

    assert found(grid, zb.SquaredError(grid(TRUTH))) == pytest.approx((1.3, 2.0))
    with pytest.raises(zb.InnerSolverError, match="labelled differently"):
        found(grid, zb.SquaredError(grid(TRUTH).T))


def test_losses_take_the_answer_in_its_own_shape():
    assert zb.SquaredError(np.ones((2, 3))).loss(np.zeros((2, 3))) == pytest.approx(1.0)
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    outer = zb.CrossEntropy([0, 1])
    assert outer.loss(logits) == outer.loss(logits.ravel())
    with pytest.raises(zb.InnerSolverError, match=r"logits must have shape \(2, classes\)"):
        found(lambda phi: np.ones((4, 2)) * phi["a"], outer)
