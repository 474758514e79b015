"""Search the operations of a small cell, keep the best of each edge, train that network anew."""

import zo_bilevel as zb
from zo_bilevel import tasks

task = tasks.load("architecture", size="smoke")
method = zb.GradientMethod(zb.FG2U(15), lr=0.2)
result = zb.minimize(task.problem, method, max_solves=300, seed=0)
print("operations:", task.problem.inner.built.discretised(result.phi))
print(f"wrong test images after training anew: {task.error(result.phi):.1%}")
