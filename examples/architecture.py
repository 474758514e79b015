"""Search the operations of a small cell, keep the best of each edge, train that network anew.

The cell found is compared with cells drawn by chance and with one that has no weights. Takes a
minute or two on one core.
"""

import os
import statistics

import numpy as np

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.tasks.architecture import EDGES, OPERATIONS

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"
STEPS = 2 if SMALL else 20

task = tasks.load("architecture", size="smoke" if SMALL else "small")
search = task.problem.inner.built
# fifteen scores, fifteen directions: the exact hypergradient, and 8 solves to judge the end
method = zb.GradientMethod(zb.FG2U(15), lr=0.2)
result = zb.minimize(task.problem, method, max_solves=16 * STEPS + 8, seed=0)

rng = np.random.default_rng(0)
drawn = [[str(name) for name in rng.choice(OPERATIONS[1:], len(EDGES))] for _ in range(5)]
errors = [search.retrained_error(cell, num_networks=1) for cell in drawn]
print(f"found: {search.discretised(result.phi)}")
print(f"wrong test images after training anew: {task.error(result.phi):.1%}")
print(f"five cells drawn by chance:            {statistics.median(errors):.1%} (median)")
print(f"the cell of skips alone:               {search.retrained_error(['skip'] * 3):.1%}")
