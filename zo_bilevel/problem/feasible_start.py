"""Where to begin when constraints forbid the start: the nearest point that keeps them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.problem.constraints import FeasibleSet
from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

INSIDE_MARGIN = 1e-8
"""By how much points are kept inside, so that rounding does not take them out."""
RANDOM_STARTS = 30
NUM_SAMPLES = 4096
"""Random points looked at where integers or choices leave no slopes."""
CONTRADICTION_VIOLATION = 1e-9


def check_consistent(space: Space, constraints: FeasibleSet) -> FloatArray:
    """A point deep inside the linear constraints: scaled, shape `(N,)`.

    Raises:
        InputError: If no point within the bounds keeps them all.
    """
    if not constraints.texts:
        return np.zeros(space.size)
    from scipy.optimize import linprog  # slow to import, seldom needed

    slopes, offset = constraints.slopes, constraints.offset
    scales = np.maximum(np.abs(slopes).sum(axis=1), np.finfo(float).tiny)
    # the deepest point: share and depth, slopes @ share + scales * depth <= -offset
    cost = np.append(np.zeros(space.size), -1.0)
    bounds = [*constraints.units, (None, 1.0)]
    found = linprog(cost, np.column_stack([slopes, scales]), -offset, bounds=bounds)
    if not found.success or found.x[-1] < -CONTRADICTION_VIOLATION:
        texts = ", ".join(repr(text.text) for text in constraints.texts)
        raise InputError(
            f"constraints contradict each other: no point within the bounds keeps {texts}"
        )
    if found.x[-1] <= CONTRADICTION_VIOLATION and not space.discrete.any():
        texts = ", ".join(repr(text.text) for text in constraints.texts)
        raise InputError(
            f"constraints must leave room between them, got {texts}; for parameters that are equal "
            "use zb.Tied, or leave a band"
        )
    low, high = space.values(space.lower), space.values(space.upper)
    values = np.clip(constraints.base + found.x[:-1] * constraints.size, low, high)
    named: dict[str, Any] = {}
    for block in space.blocks:
        if not isinstance(block.parameter, Choice):
            own = values[block.section].reshape(block.parameter.shape)
            whole = np.rint(own).astype(np.int64) if space.is_integer[block.start] else own
            named[block.name] = whole if block.parameter.shape else whole.item()
    return space.encode(named)


def nearest_allowed(space: Space, constraints: FeasibleSet, x: FloatArray) -> FloatArray:
    """The point nearest to another that keeps what is known before a solve.

    Returns:
        The same where it keeps them, else another of its shape.

    Raises:
        InputError: If none was found.
    """
    if constraints.allows(x):
        return x
    rng = np.random.default_rng(0)
    inside = check_consistent(space, constraints)
    free = ~space.discrete
    starts = [x, inside, *rng.uniform(space.lower, space.upper, (RANDOM_STARTS, space.size))]
    if free.any():
        for start in starts:
            found = _pulled(space, constraints, x, start, free)
            if constraints.allows(found):
                return found
    if not free.all():
        drawn = [inside, *rng.uniform(space.lower, space.upper, (NUM_SAMPLES, space.size))]
        allowed = [point for point in drawn if constraints.allows(point)]
        if allowed:
            return min(allowed, key=lambda point: float(np.linalg.norm(point - x)))
    worst = float(constraints.before(x).max())
    raise InputError(
        f"constraints allow no start that could be found: they are broken by {worst:.3g} at "
        f"{space.decode(x)}, and at {len(starts)} searches for another point; give an initial "
        "that keeps them"
    )


def _pulled(
    space: Space,
    constraints: FeasibleSet,
    x: FloatArray,
    start: FloatArray,
    free: NDArray[np.bool_],
) -> FloatArray:
    """The nearest point that keeps the constraints, by sequential programming from a start."""
    from scipy.optimize import minimize

    def whole(part: FloatArray) -> FloatArray:
        point = x.copy()
        point[free] = part
        return np.clip(point, space.lower, space.upper)

    def room(part: FloatArray) -> FloatArray:
        return -INSIDE_MARGIN - constraints.before(whole(part))

    def slopes(part: FloatArray) -> FloatArray:
        return -constraints.slopes_before(whole(part))[:, free]

    bounds = np.column_stack([space.lower[free], space.upper[free]])
    found = minimize(
        lambda part: 0.5 * float((part - x[free]) @ (part - x[free])),
        start[free],
        jac=lambda part: part - x[free],
        method="SLSQP",
        bounds=bounds,
        constraints={"type": "ineq", "fun": room, "jac": slopes},
        options={"maxiter": 200, "ftol": 1e-12},
    )
    return whole(found.x)
