"""A small decay, and a store that a comparison of two methods on it has filled."""

import numpy as np

import zo_bilevel as zb
from zo_bilevel.comparison.stored_comparison import stored_comparisons

METHODS = {"adam": zb.GradientMethod(), "random": zb.RandomSearch()}


def decay(phi):
    return np.exp(-phi["rate"] * np.linspace(0, 1, 8))


def problem_of(upper=10.0, solver=decay, name="decay"):
    space = zb.Space(rate=zb.Log(1e-3, upper))
    return zb.Problem(space, solver, zb.SquaredError(decay({"rate": 0.3})), name)


def filled_store(tmp_path):
    """A store with four runs, and the comparison that made them."""
    path = tmp_path / "runs.sqlite"
    return path, zb.compare(problem_of(), METHODS, max_solves=9, seeds=range(2), store=path)


def found_in(path, **options):
    """The comparisons that a store holds."""
    with zb.Store(path, read_only=True) as store:
        return stored_comparisons(store, **options)
