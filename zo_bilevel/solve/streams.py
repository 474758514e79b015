"""The register of random streams: every first number there is, so that no two uses meet.

A solve is seeded by the run's seed and its point's stream, `solve_seed`; everything else that is
drawn in a run comes from a generator of the run's seed and a key, `generator`. Streams and keys
below `START_STREAM` are a method's own.
"""

import numpy as np

START_STREAM = 1 << 15
"""Of solves: further starts, where the first fails."""
OTHER_SEED_STREAM = 1 << 16
"""Of solves: the seeds that a scalar search averages minima over."""
MIXED_STREAM = 1 << 17
"""Of solves: one for each round of a search over integers and choices that sees draws."""
JUDGE_STREAM, CONFIRM_STREAM = 1 << 18, 1 << 19
"""Of solves that judge final points, of a comparison and of a run; no method may ask for them."""
GENERATION_STREAM, FINALIST_STREAM = 1 << 22, 1 << 23
"""Of solves: of a population that sees draws, in turn, and of those that may be best in the end."""
METHOD_KEY = 1 << 20
"""Of generators: what a method or an estimator draws."""
PHASE_KEY = LOOP_KEY = 1 << 21
"""Of generators: phases of `TwoPhase`, candidates of a Nevergrad loop; no run has both."""


def solve_seed(seed: int, stream: tuple[int, ...]) -> int:
    """Seed of a solve: depends on the run's seed and the point's stream, on nothing else.

    Returns:
        An integer in [0, 2**32).

    Example:
        >>> solve_seed(0, (3,)) == solve_seed(0, (3,)) != solve_seed(0, (4,))
        True
    """
    return int(np.random.SeedSequence(seed, spawn_key=stream).generate_state(1)[0])


def generator(seed: int, *key: int) -> np.random.Generator:
    """Random numbers of a run apart from those of its solves.

    Args:
        seed: Seed of the run, >= 0.
        *key: First a key of this register, then which stream, for instance the step.

    Example:
        >>> first, second = (generator(0, METHOD_KEY, 1).random() for _ in range(2))
        >>> first == second
        True
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
