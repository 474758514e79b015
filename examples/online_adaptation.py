"""Learn which tokens of a document a small GPT-2 should learn from. Needs transformers."""

import zo_bilevel as zb
from zo_bilevel import tasks

task = tasks.load("online-adaptation", size="smoke", unroll=6)
start = task.start(0)
method = zb.GradientMethod(zb.FG2U(8), lr=0.1)
result = zb.minimize(task.problem, method, initial=start, max_solves=300, seed=0)
print(f"all tokens alike: loss {result.history[0].loss:.3f} on the first documents")
print(f"learned weights:  loss {result.loss:.3f}, peak memory {result.memory}")
