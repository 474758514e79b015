"""A problem of two numbers, any part of which can be another."""

import numpy as np

import zo_bilevel as zb

SPACE = zb.Space(a=zb.Real(-3, 3, (2,)))
TARGET = np.zeros(2)


def inner(phi):
    return phi["a"]


def problem(outer=None, **facts):
    given = {"space": SPACE, "name": "p", "version": "1", "inner": inner, **facts}
    return zb.Problem(outer=zb.SquaredError(TARGET) if outer is None else outer, **given)
