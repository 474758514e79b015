"""What a person may have in a file of their own, good and bad, for the command line."""

import time

import numpy as np

import zo_bilevel as zb

times = np.linspace(0, 1, 8)
NUMBER = 3


def simulate(phi):
    return np.exp(-phi["rate"] * times)


def sleepy(phi):
    time.sleep(0.05)
    return simulate(phi)


def hangs_above_one(phi):
    if phi["rate"] > 1:
        time.sleep(600)
    return simulate(phi)


def broken(phi):
    raise RuntimeError("no licence")


def never_ends(phi):
    time.sleep(600)


space = zb.Space(rate=zb.Log(1e-3, 10.0))
target = zb.SquaredError(simulate({"rate": 0.3}))
decay = zb.Problem(space, simulate, target)
slow = zb.Problem(space, sleepy, target)
hanging = zb.Problem(space, hangs_above_one, target)
failing = zb.Problem(space, broken, target)
endless = zb.Problem(space, never_ends, target)
task = zb.Task(
    "decay-task",
    "a rate from 8 values",
    decay,
    truth={"rate": 0.3},
    error=lambda phi: abs(phi["rate"] - 0.3) / 0.3,
    target_error=0.05,
    published={"relative error": 0.04},
    max_solves=30,
)


def field(size=4, kind="a"):
    space = zb.Space(field=zb.Real(-1, 1, shape=(size,)), scheme=zb.Choice(["x", "y"]))
    return zb.Problem(space, lambda phi: phi["field"], zb.SquaredError(np.full(size, 0.5)))


def needy(size):
    return field(size)


def wrong():
    return 5
