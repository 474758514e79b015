"""(FG)2U on a training loop that knows nothing of this package: 500 Adam steps, 21 parameters.

The loop is ordinary functional torch; only its middle, one step, is handed over.
"""

import torch

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll

torch.manual_seed(0)
inputs = torch.randn(60, 20)
targets = inputs[:, :3].sum(dim=1) + 0.5 * torch.randn(60)
held_out = torch.randn(200, 20)
answers = held_out[:, :3].sum(dim=1)


# --- somebody else's code ---------------------------------------------------------------------
def training_loss(weights, penalties):
    misfit = ((inputs @ weights - targets) ** 2).mean()
    return misfit + (penalties.exp() * weights**2).sum()


def adam_step(state, penalties, rate, t):
    weights, mean, square = state
    gradient = torch.func.grad(training_loss)(weights, penalties)
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    size = (square / (1 - 0.999 ** (t + 1)) + 1e-16).sqrt()
    return weights - rate * mean / (1 - 0.9 ** (t + 1)) / size, mean, square


# ----------------------------------------------------------------------------------------------
loop = TorchUnroll(
    init=lambda phi: (torch.zeros(20), torch.zeros(20), torch.zeros(20)),
    step=lambda state, phi, t, batch: adam_step(state, phi["penalties"], phi["rate"], t),
    num_steps=500,
    read=lambda state, phi: held_out @ state[0],
)
space = zb.Space(penalties=zb.Real(-8, 2, shape=(20,)), rate=zb.Log(1e-3, 0.1))
problem = zb.Problem(space, loop, zb.SquaredError(answers))
method = zb.GradientMethod(zb.FG2U(8), lr=0.3)
result = zb.minimize(problem, method, max_solves=63, seed=0)
print(f"validation error {result.history[0].loss:.4f} -> {result.loss:.4f}")
print("penalties of the three features that matter:", result.phi["penalties"][:3].round(1))
print("mean penalty of the others:", result.phi["penalties"][3:].mean().round(1))
