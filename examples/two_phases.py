"""A cheap biased phase, then an exact one: two phases that switch by themselves beat either alone.

40 weights of a sum over slow and fast inner modes, 30 inner steps. Truncated reverse mode sees the
last five steps only: it is cheap, and stops at a biased point, as the slow modes are hardly seen.
(FG)2U is exact and pays for each direction. All three get the same number of solves.
"""

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll

SIZE, ROWS, STEPS, RATE, SOLVES = 40, 80, 30, 0.5, 240

rng = np.random.default_rng(0)
matrix = rng.normal(size=(ROWS, SIZE)) / np.sqrt(SIZE)
speed = np.where(rng.random(ROWS) < 0.5, 1.0, 0.03)
target = rng.normal(size=ROWS) + matrix @ rng.normal(size=SIZE)
a, b, y = (torch.from_numpy(part) for part in (speed, matrix, target))


def init(phi):
    return torch.zeros(ROWS, dtype=torch.float64)


def step(state, phi, t, batch):
    return state - RATE * a * (state - b @ phi["x"])


loop = TorchUnroll(init, step, STEPS, dtype=torch.float64)
space = zb.Space(x=zb.Real(-6, 6, shape=(SIZE,)))
problem = zb.Problem(space, loop, loop.outer(lambda s, phi: 0.5 * ((s - y) ** 2).mean()))

# the least loss there is, by the closed form of the inner loop
jacobian = (1 - (1 - RATE * speed) ** STEPS)[:, None] * matrix
best = np.linalg.lstsq(jacobian, target, rcond=None)[0]
least = 0.5 * np.mean((jacobian @ best - target) ** 2)


def cheap():
    return zb.GradientMethod(zb.TruncatedUnroll(5), lr=0.1)


def exact():
    return zb.GradientMethod(zb.FG2U(8), lr=0.1)


methods = {
    "truncated alone": cheap(),
    "(FG)2U alone": exact(),
    "two phases": zb.TwoPhase([(cheap(), "auto"), (exact(), None)]),
}
for name, method in methods.items():
    excess = [
        zb.minimize(problem, method, max_solves=SOLVES, seed=seed).loss - least for seed in range(5)
    ]
    print(
        f"{name:16} loss above the least: median {np.median(excess):.4f}, "
        f"{min(excess):.4f} to {max(excess):.4f}"
    )
