"""One difference mechanism: values, sides, and what failures leave of them."""

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.estimators.differences import Differences
from zo_bilevel.estimators.orders import Push
from zo_bilevel.solve.evaluation import Evaluation

MATRIX = np.array([[1.0, 2.0], [0.0, 3.0], [4.0, -1.0]])
BASE = np.array([0.5, -0.5])
WAYS = np.array([[0.1, 0.0, 0.2], [0.0, 0.3, -0.1]])
SPACE = zb.Space(a=zb.Real(-3, 3, shape=(2,)))


def solution(x):
    return MATRIX @ x + 0.7 * x[0] ** 2


class Solution:
    """Looks at theta itself."""

    def observe(self, evaluation):
        assert evaluation.ok
        return evaluation.theta

    def tangents(self, derivative, directions, x):
        np.testing.assert_array_equal(directions, WAYS)
        np.testing.assert_array_equal(x, BASE)
        return derivative


def changes(kind, base=BASE, failed=(), origin=True):
    differences = Differences(kind, base, WAYS, SPACE)
    evaluations = []
    for place, point in enumerate(differences.points((0,))):
        lost = place in failed
        status = "failed" if lost else "ok"
        evaluations.append(Evaluation(point, status, None if lost else solution(point.x), 0.0))
    start = solution(base) if origin else None
    return differences.changes(evaluations, start, Solution())


@pytest.mark.parametrize(("kind", "share"), [("forward", 2.0), ("central", 0.5)])
def test_changes_are_those_of_the_solver(kind, share):
    for way, change in zip(WAYS.T, changes(kind), strict=True):
        second_order = 0.7 * way[0] ** 2 if kind == "forward" else 0.0
        expected = MATRIX @ way + 1.4 * BASE[0] * way[0] + second_order
        np.testing.assert_allclose(change.change, expected, rtol=1e-12)
        np.testing.assert_array_equal(change.displacement, way)
        assert change.noise_share == share


def test_solves_share_a_stream_and_have_their_role():
    differences = Differences("central", BASE, WAYS, SPACE)
    points = differences.points((3, 1))
    assert {(point.stream, point.role) for point in points} == {((3, 1), "sketch")}
    expected = [BASE + sign * way for way in WAYS.T for sign in (1.0, -1.0)]
    np.testing.assert_array_equal([point.x for point in points], expected)
    assert {point.role for point in differences.points((3, 1), "trial")} == {"trial"}


def test_solves_that_are_missing_at_the_end_are_lost():
    differences = Differences("forward", BASE, WAYS, SPACE)
    point = differences.points((0,))[0]
    some = [Evaluation(point, "ok", solution(point.x), 0.0)]
    first, *others = differences.changes(some, solution(BASE), Solution())
    assert first is not None
    assert others == [None, None]


def test_without_the_base_and_all_others_nothing_is_told():
    assert changes("forward", failed=(0, 1, 2), origin=False) == [None] * 3


def test_of_a_central_difference_one_side_is_enough():
    behind_only, ahead_only, nothing = changes("central", failed=(0, 3, 4, 5))
    np.testing.assert_allclose(
        behind_only.change, solution(BASE - WAYS[:, 0]) - solution(BASE), rtol=1e-12
    )
    np.testing.assert_array_equal(behind_only.displacement, -WAYS[:, 0])
    np.testing.assert_array_equal(ahead_only.displacement, WAYS[:, 1])
    assert behind_only.noise_share == ahead_only.noise_share == 2.0
    assert nothing is None


def test_without_the_base_the_first_that_came_back_takes_its_place():
    lost, anchor, other = changes("forward", failed=(0,), origin=False)
    assert lost is None
    assert anchor is None
    np.testing.assert_allclose(other.displacement, WAYS[:, 2] - WAYS[:, 1])
    expected = solution(BASE + WAYS[:, 2]) - solution(BASE + WAYS[:, 1])
    np.testing.assert_allclose(other.change, expected, rtol=1e-12)


def test_at_a_bound_the_displacement_says_where_the_solve_was():
    corner = np.array([3.0, 3.0])
    first, second, third = changes("central", base=corner)
    np.testing.assert_allclose(first.displacement, [0.05, 0.0])
    np.testing.assert_allclose(first.change * 2, solution(corner) - solution(corner - WAYS[:, 0]))
    np.testing.assert_allclose(second.displacement, [0.0, 0.15])
    np.testing.assert_allclose(third.displacement, [0.1, -0.05])
    (first, second, _) = changes("central", base=-corner)
    np.testing.assert_allclose(first.displacement, [0.05, 0.0])
    np.testing.assert_allclose(second.displacement, [0.0, 0.15])


def test_exact_differences_are_one_solve_with_tangents():
    differences = Differences("exact", BASE, WAYS, SPACE)
    (point,) = differences.points((4,), "trial")
    assert isinstance(point.derivative, Push)
    assert (point.role, point.stream, point.solves) == ("trial", (4,), 4)
    np.testing.assert_array_equal(point.x, BASE)
    answered = Evaluation(point, "ok", np.zeros(3), 0.0, derivative=MATRIX @ WAYS)
    found = differences.changes([answered], None, Solution())
    np.testing.assert_array_equal(np.column_stack([c.change for c in found]), MATRIX @ WAYS)
    np.testing.assert_array_equal(np.column_stack([c.displacement for c in found]), WAYS)
    assert {change.noise_share for change in found} == {0.0}
    lost = Evaluation(point, "failed", None, np.inf, derivative=MATRIX @ WAYS)
    assert differences.changes([lost], None, Solution()) == [None] * 3
    assert differences.changes([], None, Solution()) == [None] * 3
    short = Evaluation(point, "ok", np.zeros(3), 0.0, derivative=MATRIX @ WAYS[:, :2])
    with pytest.raises(ValueError, match="shorter"):
        differences.changes([short], None, Solution())
