"""Tells the outer loop whether an adapter wants the seed of each solve."""

import inspect


def solver_signature(*, with_seed: bool) -> inspect.Signature:
    """The signature of an inner solver, for an adapter's own `__signature__`.

    An adapter learns only when it is made whether what it wraps takes a seed. A solver that does
    not must not seem to: stored solves would then be kept apart by a seed that has no effect.

    Example:
        >>> str(solver_signature(with_seed=True)), str(solver_signature(with_seed=False))
        ('(phi, *, seed=None)', '(phi)')
    """
    names = [inspect.Parameter("phi", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    if with_seed:
        names.append(inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=None))
    return inspect.Signature(names)
