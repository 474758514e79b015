"""Tune a training: through torch with exact derivatives, through scikit-learn as a black box."""

import zo_bilevel as zb
from zo_bilevel import tasks

through_torch = tasks.load("hyperparameters", size="smoke")
method = zb.GradientMethod(zb.FG2U(7), lr=0.3)
result = zb.minimize(through_torch.problem, method, max_solves=200, seed=0)
print("torch:", result)
print(f"  wrong test images: {through_torch.error(result.phi):.1%}")

through_sklearn = tasks.load("hyperparameters", size="smoke", through="sklearn")
print("scikit-learn:", zb.minimize(through_sklearn.problem, max_solves=60, seed=0))
