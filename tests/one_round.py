"""One round of a problem, without a method."""

from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Point


def evaluate(problem, *values, dispatcher=None):
    """Evaluations of one round, one point a value of each parameter."""
    evaluator = Evaluator(problem, dispatcher or Serial(), 0)
    points = [Point(problem.space.encode(phi)) for phi in values]
    return evaluator.evaluate(points)
