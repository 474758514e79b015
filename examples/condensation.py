"""Condense digits to one image a class, with exact forward-mode directional derivatives."""

import zo_bilevel as zb
from zo_bilevel import tasks

task = tasks.load("condensation", images_per_class=1, size="smoke")
start = task.start(0)
method = zb.GradientMethod(zb.FG2U(16), lr=0.03)
result = zb.minimize(task.problem, method, initial=start, max_solves=500, seed=0)
print(f"ten real images:      {1 - task.error(start):.1%} of test images right")
print(f"ten condensed images: {1 - task.error(result.phi):.1%}, {result.solves} solves")
