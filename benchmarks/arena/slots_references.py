"""Prompt slots where the method chooses how many examples to ask: the default and what is known.

python -m benchmarks.arena.slots_references        # share of the possible gain
python -m benchmarks.arena.slots_references --calls 640 --kinds pairs --seeds 100 101
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import zo_bilevel as zb
from benchmarks.arena.slots_problems import CALLS, NAMES, lost_share
from benchmarks.arena.slots_worlds import EXAMPLES, OPTIONS, SLOTS, Kind, World, make_world

Picks = tuple[int, ...]
RUNGS = (8, 16, 32, 64)
CALLS_A_CANDIDATE = 20
"""What a candidate of successive halving costs, over all rungs."""
BATCH = 4
EXPLORING = 0.7
"""Share of the calls before the best are confirmed."""
PRIOR_PRECISION = 4.0


class Answers:
    """Counts calls; a model without temperature is asked once for each answer.

    Args:
        world: Who answers.
        is_noisy: Whether an answer is drawn anew each time.
        seed: Of the draws.
    """

    def __init__(self, world: World, is_noisy: bool, seed: int) -> None:
        self._world, self._is_noisy = world, is_noisy
        self._rng = np.random.default_rng([8, seed])
        self._known: set[tuple[Picks, int]] = set()
        self.calls = 0

    def ask(self, picks: Picks, examples: NDArray[np.int64]) -> float:
        """How many of some examples are answered rightly."""
        if self._is_noisy:
            self.calls += len(examples)
            return float(
                (self._rng.random(len(examples)) < self._world.chances(picks)[examples]).sum()
            )
        new = {(picks, int(example)) for example in examples} - self._known
        self._known |= new
        self.calls += len(new)
        return float(self._world.fixed_answers(picks)[examples].sum())


def random_combinations(count: int, rng: np.random.Generator) -> list[Picks]:
    """The start and others drawn at random."""
    drawn = rng.integers(OPTIONS, size=(count - 1, SLOTS))
    return [(0,) * SLOTS, *(tuple(row.tolist()) for row in drawn)]


def successive_halving(answers: Answers, calls: int, rng: np.random.Generator) -> Picks:
    """Random combinations on 8 examples, the better half on 16, and so on."""
    order = rng.permutation(EXAMPLES)
    drawn = random_combinations(max(8, calls // CALLS_A_CANDIDATE), rng)
    right, done = dict.fromkeys(drawn, 0.0), 0
    left = list(right)
    for rung in RUNGS:
        for picks in left:
            if answers.calls + rung - done <= calls:
                right[picks] += answers.ask(picks, order[done:rung])
        left = sorted(left, key=lambda picks: -right[picks])[: max(1, len(left) // 2)]
        done = rung
    return left[0]


def additive_thompson(answers: Answers, calls: int, rng: np.random.Generator) -> Picks:
    """Draws from a linear model of options, on 4 examples at a time; 4 finalists."""
    precision, total = np.eye(1 + SLOTS * OPTIONS) * PRIOR_PRECISION, np.zeros(1 + SLOTS * OPTIONS)
    seen: dict[Picks, None] = {}
    for _ in range(calls // BATCH):  # more where known answers cost nothing, but not for ever
        if answers.calls + BATCH > EXPLORING * calls:
            break
        factor = np.linalg.cholesky(precision)
        drawn = np.linalg.solve(precision, total)
        drawn += np.linalg.solve(factor.T, rng.standard_normal(total.size)) / 2
        picks = tuple(drawn[1:].reshape(SLOTS, OPTIONS).argmax(axis=1).tolist())
        right = answers.ask(picks, rng.choice(EXAMPLES, BATCH, replace=False))
        row = _row(picks)
        precision += BATCH * np.outer(row, row)
        total += (right - BATCH / 2) * row
        seen[picks] = None
    mean = np.linalg.solve(precision, total)
    finalists = sorted(seen, key=lambda picks: -float(_row(picks) @ mean))[:4]
    each = max(1, min(EXAMPLES, (calls - answers.calls) // len(finalists)))
    examples = rng.permutation(EXAMPLES)[:each]
    return max(finalists, key=lambda p: answers.ask(p, examples) / each + _row(p) @ mean)


def default_method(answers: Answers, calls: int, rng: np.random.Generator) -> Picks:
    """`zb.minimize`, told that a solve may ask 4 to 64 examples."""

    def wrong(phi: Mapping[str, Any], *, seed: int) -> zb.WithCost:
        draw = np.random.default_rng(seed).choice(EXAMPLES, phi["examples"], replace=False)
        right = answers.ask(tuple(phi[name] for name in NAMES), draw)
        return zb.WithCost(1 - right / len(draw), len(draw))

    space = zb.Space({name: zb.Choice(tuple(range(OPTIONS))) for name in NAMES})
    problem = zb.Problem(space, wrong, fidelity=zb.Fidelity("examples", BATCH, EXAMPLES))
    start, seed = dict.fromkeys(NAMES, 0), int(rng.integers(2**31))
    found = zb.minimize(problem, max_cost=calls, initial=start, seed=seed).phi
    return tuple(found[name] for name in NAMES)


def _row(picks: Picks) -> NDArray[np.float64]:
    return np.concatenate([[1.0], np.eye(OPTIONS)[list(picks)].ravel()])


REFERENCES: dict[str, Callable[[Answers, int, np.random.Generator], Picks]] = {
    "default": default_method,
    "halving": successive_halving,
    "additive Thompson": additive_thompson,
}


def share_gained(
    reference: str, kind: Kind, is_noisy: bool, calls: int, seed: int
) -> tuple[float, int]:
    """Share of the possible gain, and the calls that it took."""
    answers = Answers(make_world(kind, seed), is_noisy, seed)
    picks = REFERENCES[reference](answers, calls, np.random.default_rng(seed))
    return 1 - lost_share(kind, seed, dict(zip(NAMES, picks, strict=True))), answers.calls


def main() -> None:
    """Print a table of all references on all kinds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arena.slots_references")
    parser.add_argument("--calls", type=int, nargs="*", default=CALLS)
    parser.add_argument("--kinds", nargs="*", default=get_args(Kind), choices=get_args(Kind))
    parser.add_argument("--seeds", type=int, nargs="*", default=range(20))
    parser.add_argument("--only", nargs="*", default=list(REFERENCES), choices=list(REFERENCES))
    options = parser.parse_args()
    kinds = options.kinds
    table = Table("reference", "answers", "calls", *kinds, title="share of the possible gain")
    for reference in options.only:
        for is_noisy in (False, True):
            for calls in options.calls:
                found = [
                    [share_gained(reference, k, is_noisy, calls, s)[0] for s in options.seeds]
                    for k in kinds
                ]
                shares = [float(np.mean(each)) for each in found]
                words = "noisy" if is_noisy else "fixed"
                table.add_row(reference, words, str(calls), *(f"{share:.3f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
