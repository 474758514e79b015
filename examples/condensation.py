"""Condense digits to one image a class, with exact forward-mode directional derivatives.

A fresh network trained on the ten condensed images should do better on real ones than a network
trained on ten real images. Takes a minute or two on one core.
"""

import os

import torch

import zo_bilevel as zb
from zo_bilevel import tasks

STEPS = 3 if os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small" else 60

task = tasks.load("condensation", images_per_class=1, size="small")
start = task.start(0)
estimator = zb.FG2U(64, chunk=64)
method = zb.GradientMethod(
    estimator,
    lr=0.03,
    scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS),
)
# each outer step counts 65 solves, and 8 more judge the last point on fresh networks
result = zb.minimize(task.problem, method, initial=start, max_solves=65 * STEPS + 8, seed=0)
print(f"ten real images:      {1 - task.error(start):.1%} of test images right")
print(f"ten condensed images: {1 - task.error(result.phi):.1%}, {STEPS} outer steps")
