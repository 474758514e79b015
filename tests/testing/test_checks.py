"""The public checks refuse parts that are wrong: by a tenth, beyond the bounds, in a batch."""

import dataclasses

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel import testing
from zo_bilevel.testing import check_estimator, check_inner_solver, check_method, check_task


def test_every_check_and_fault_is_exported():
    assert {"check_method", "check_store", "check_survives", "PERVERSIONS", "Hanging"} <= {
        *testing.__all__
    }
    assert all(getattr(testing, name) is not None for name in testing.__all__)
    with pytest.raises(AttributeError, match="check_nothing"):
        testing.check_nothing  # noqa: B018


@dataclasses.dataclass(frozen=True)
class Altered:
    """An estimator whose sketches are changed afterwards."""

    base: zb.FG2UZO
    factor: float = 1.0
    changes: tuple = ()

    def plan(self, *args):
        return self.base.plan(*args)

    def sketch(self, plan, evaluations, bound):
        sketch = self.base.sketch(plan, evaluations, bound)
        return dataclasses.replace(sketch, U=self.factor * sketch.U, **dict(self.changes))


@pytest.mark.parametrize(
    ("directions", "factor"),
    [
        *(("orthogonal", factor) for factor in (0.9, 1.1, 1.25, 0.5, 2.0)),
        *(("coordinate", factor) for factor in (0.9, 1.1)),
        ("gaussian", 1.1),  # a scale that varies: many blocks are drawn
    ],
)
def test_an_estimator_off_by_a_factor(directions, factor):
    with pytest.raises(AssertionError, match="the mean must be the hypergradient"):
        check_estimator(Altered(zb.FG2UZO(2, directions=directions), factor))


@pytest.mark.parametrize(
    ("directions", "correction"), [("orthogonal", 1.0), ("coordinate", 1.0), ("rademacher", 0.0)]
)
def test_an_estimator_with_a_wrong_standard_error(directions, correction):
    altered = Altered(zb.FG2UZO(2, directions=directions), changes=(("correction", correction),))
    with pytest.raises(AssertionError, match="the standard error must be the spread"):
        check_estimator(altered)


def test_an_estimator_that_hides_lost_probes():
    with pytest.raises(AssertionError, match="counted as dropped, got 0"):
        check_estimator(Altered(zb.FG2UZO(2), changes=(("dropped", 0),)))


def test_too_few_draws_for_the_power_that_is_promised():
    with pytest.raises(AssertionError, match="50 draws are too few"):
        check_estimator(zb.FG2UZO(2, directions="gaussian"), draws=50)


class Far(zb.Method):
    """Asks for a point at a distance from the start, in the middle."""

    name = "far"

    def __init__(self, distance):
        self.distance = distance

    def rounds(self, search):
        yield [search.point(search.start, "start")]
        yield [search.point(search.start + self.distance)]
        return "two rounds"


@pytest.mark.parametrize("distance", [9.0, 3.001, -np.inf, np.nan])
def test_a_method_that_leaves_the_bounds(distance):
    check_method(Far(3.0))
    with pytest.raises(AssertionError, match="points lie within the bounds"):
        check_method(Far(distance))


class AfterFailure(Far):
    """Leaves the bounds only after a failed solve."""

    def rounds(self, search):
        for step in range(9):
            (found,) = yield [search.point(search.start + 0.1 * step)]
            if not found.ok:
                yield [search.point(search.start + found.loss)]
        return "nine rounds"


def test_a_method_that_leaves_the_bounds_after_a_failure():
    with pytest.raises(AssertionError, match="points lie within the bounds"):
        check_method(AfterFailure(0.0))


class Decay:
    """A decay at 20 times, whose batch is `factor` times what a call gives."""

    def __init__(self, factor=1.0, dtype="float64", ends=20):
        self.factor, self.dtype, self.ends = factor, dtype, ends

    def __call__(self, phi):
        wave = phi["size"] * np.exp(-phi["rate"] * np.linspace(0, 1, 20))
        return wave.astype(self.dtype)

    def solve_batch(self, phis):
        times = np.linspace(0, 1, 20)[: self.ends]
        waves = self.factor * phis["size"][:, None] * np.exp(-phis["rate"][:, None] * times)
        return waves.astype(self.dtype)


SPACE = zb.Space(size=zb.Real(0, 2), rate=zb.Log(0.1, 10))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_batch_that_gives_other_numbers(dtype):
    check_inner_solver(Decay(dtype=dtype), SPACE)
    with pytest.raises(AssertionError, match=r"solve_batch gives what a call gives.*'rate': 1.0"):
        check_inner_solver(Decay(1.01, dtype), SPACE)


def test_a_batch_is_held_to_the_precision_of_its_own_type():
    check_inner_solver(Decay(1 + 1e-5, "float32"), SPACE)
    with pytest.raises(AssertionError, match="solve_batch gives what a call gives"):
        check_inner_solver(Decay(1 + 1e-5), SPACE)


def test_a_batch_that_gives_too_little():
    with pytest.raises(AssertionError, match="the size of theta that a call gives"):
        check_inner_solver(Decay(ends=1), SPACE)


def test_a_task_without_a_budget():
    problem = zb.Problem(SPACE, Decay(), zb.SquaredError(np.ones(20)))
    task = zb.Task("decay", "A decay", problem)
    check_task(task)
    with pytest.raises(AssertionError, match="max_solves is >= 1, got 0"):
        check_task(dataclasses.replace(task, max_solves=0))


def test_a_task_of_something_else():
    with pytest.raises(zb.InputError, match=r"problem must be a zb\.Problem, got str"):
        zb.Task(zb.Problem(SPACE, Decay()), "decay", "A decay")
