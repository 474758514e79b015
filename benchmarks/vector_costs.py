"""What the default costs on vectors: its own time a solve, and rounds where several solve at once.

    python -m benchmarks.vector_costs [--problems 12] [--half tune]

On noiseless problems of the arena, spread over their sizes: microseconds of the processor a solve
outside the solver, beside DFO-LS; then rounds until a share of 1e-5 of the possible gain is left,
4 and 16 solves a round over one by one.
"""

import argparse
from dataclasses import replace

import numpy as np

import zo_bilevel as zb
from benchmarks.arena.best import smallest_loss
from benchmarks.arena.catalogue import chosen
from benchmarks.arena.running import run_once

GROUPS = ("more-wild", "nist", "large", "simulators", "fields")
METHODS = ("default", "dfols")
WIDTHS = (1, 4, 16)
TAU = 1e-5
MOST_SOLVES = 300


def rounds_to_target(problem, width):
    """Rounds and solves until `TAU` of the possible gain is left, infinite when it never is."""
    lowest = smallest_loss(problem)
    enough = lowest + TAU * (problem.start_loss - lowest)

    def inner(phi):
        return problem.theta(problem.from_phi(phi))

    bilevel = zb.Problem(problem.space(), inner, zb.SquaredError(problem.target))
    result = zb.minimize(
        bilevel,
        initial=problem.to_phi(problem.start),
        max_solves=MOST_SOLVES,
        tolerance=enough,
        round_width=width,
        seed=0,
    )
    reached = [row for row in result.history if row.best_loss <= enough]
    return (reached[0].round, reached[0].solve) if reached else (np.inf, np.inf)


def own_microseconds(problem, method):
    """Of the processor a solve, outside the solver; NaN where the method refuses the problem."""
    run = run_once(problem, method)
    return run.own_seconds / run.solves * 1e6 if run.solves else np.nan


def main():
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=12)
    parser.add_argument("--half", choices=["tune", "held"], default="tune")
    options = parser.parse_args()
    found = sorted(chosen(options.half, GROUPS), key=lambda problem: problem.size)
    found = [found[k] for k in np.linspace(0, len(found) - 1, options.problems).astype(int)]
    for name in METHODS:  # what is imported at first use is no solve's
        own_microseconds(found[0], name)
    ratios = {width: [] for width in WIDTHS}
    print(f"{'problem':34s} {'N':>4s} {'own us':>8s} {'DFO-LS':>8s}  rounds (solves) at {WIDTHS}")
    for problem in found:
        short = replace(problem, max_groups=max(1, MOST_SOLVES // (problem.size + 1)))
        own = [own_microseconds(short, name) for name in METHODS]
        rounds = [rounds_to_target(problem, width) for width in WIDTHS]
        if np.isfinite(rounds[0][0]):
            for width, (count, _) in zip(WIDTHS, rounds, strict=True):
                ratios[width].append(count / rounds[0][0])
        words = "  ".join(f"{count:.0f} ({solves:.0f})" for count, solves in rounds)
        print(
            f"{problem.name:34s} {problem.size:4d} {own[0]:8.0f} {own[1]:8.0f}  {words}", flush=True
        )
    for width in WIDTHS[1:]:
        low, middle, high = np.percentile(ratios[width], (25, 50, 75), method="lower")
        print(f"width {width}: {middle:.2f} of the rounds of width 1 ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
