"""Published constrained problems: engineering design, then Hock and Schittkowski.

Every constraint is at most 0 where it holds and divided by its own right side, as its source
writes it or nearly so.
"""

from benchmarks.arena.constrained_engineering import ENGINEERING
from benchmarks.arena.hock_schittkowski import HOCK_SCHITTKOWSKI

PROBLEMS = (*ENGINEERING, *HOCK_SCHITTKOWSKI)
