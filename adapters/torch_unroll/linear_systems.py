"""`K u = w` where only products with K are known: a series, conjugate gradients, GMRES.

Vectors are lists of tensors, one a leaf. For a step `theta -> step(theta, phi)` K is
`(I - dstep/dtheta)'`; for an optimality condition it is `(dcondition/dtheta)'`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch

from zo_bilevel.support.errors import InvalidSolutionError

Vector: TypeAlias = list[torch.Tensor]
Product: TypeAlias = Callable[[Vector], Vector]
Solver: TypeAlias = Literal["neumann", "conjugate_gradient", "gmres"]

MAX_GROWTH_OF_TERMS = 1e3
"""Terms of a Neumann series that grow by more than this do not add up to anything."""
AUTO_TERMS = 100
DENSE_NUMBERS = 512
"""Unknowns up to which a system that those products leave unsolved is solved as a matrix."""
MAX_RESIDUAL = 0.5
"""Relative; what is left where no tolerance is asked for, and of a system that is not singular."""
NAMES = {
    "neumann": "the Neumann series",
    "conjugate_gradient": "conjugate gradients",
    "gmres": "GMRES",
}
MAX_ASYMMETRY = 1e-2
"""Relative difference of `a'K b` and `b'K a` beyond which a matrix is not symmetric."""


def dot(a: Vector, b: Vector) -> float:
    """Inner product, in double precision."""
    return math.fsum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


def norm(a: Vector) -> float:
    """Length."""
    return math.sqrt(dot(a, a))


def plus(a: Vector, factor: float, b: Vector) -> Vector:
    """`a + factor b`."""
    return [torch.add(x, y, alpha=factor) for x, y in zip(a, b, strict=True)]


def solved(
    solver: Solver,
    product: Product,
    rights: list[Vector],
    terms: int | Literal["auto"],
    tolerance: float,
) -> list[Vector]:
    """Solve `K u = w` to a relative residual, or as far as the terms go, which is told.

    Args:
        solver: "neumann" for K near the identity, "conjugate_gradient" for a symmetric positive
            K, "gmres" for any invertible one.
        product: From u to `K u`.
        rights: Right-hand sides w.
        terms: Products at the most, >= 1; "auto": 100, then a matrix where K is small.
        tolerance: Relative size of the residual, >= 0.

    Returns:
        A u each.

    Raises:
        InvalidSolutionError: If the series diverges, or K is singular or not what the solver needs.
    """
    method = {"neumann": _neumann, "conjugate_gradient": _conjugate_gradient, "gmres": _gmres}
    most, goal = AUTO_TERMS if terms == "auto" else terms, tolerance or MAX_RESIDUAL
    answers, left, matrix = [], [0.0], None
    for w in rights:
        if norm(w) == 0.0:
            answers.append(w)
            continue
        u, residual = method[solver](product, w, most, tolerance)
        if terms == "auto" and not residual <= goal and sum(map(torch.numel, w)) <= DENSE_NUMBERS:
            matrix = _matrix(product, w) if matrix is None else matrix
            u, residual = _directly(matrix, w)
        answers.append(u)
        left.append(residual)
    worst = max(left)
    if not worst <= goal:
        warnings.warn(
            f"{NAMES[solver]} left {worst:.0e} of the right-hand side after {most} products, which "
            f"is more than {goal:g}: the hypergradient may be wrong by as much, or by far more "
            "where the system is badly conditioned or the last step of a loop hardly moves; give "
            "more terms, or of a loop a last step with a larger rate, or ReverseUnroll",
            RuntimeWarning,
            stacklevel=2,
        )
    return answers


def _matrix(product: Product, like: Vector) -> torch.Tensor:
    """K as a matrix of double precision on the host, by a product a column."""
    size = sum(part.numel() for part in like)
    columns = [_flat(product(_shaped(row, like))) for row in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, dim=1)


def _directly(matrix: torch.Tensor, w: Vector) -> tuple[Vector, float]:
    """The shortest u of the smallest residual, and that."""
    right = _flat(w)
    u = torch.linalg.lstsq(matrix, right, driver="gelsd").solution
    residual = float(torch.linalg.norm(matrix @ u - right) / torch.linalg.norm(right))
    _refuse_singular(residual)
    return _shaped(u, w), residual


def _flat(vector: Vector) -> torch.Tensor:
    return torch.cat([part.detach().double().cpu().ravel() for part in vector])


def _shaped(flat: torch.Tensor, like: Vector) -> Vector:
    parts = torch.split(flat, [part.numel() for part in like])
    return [part.view_as(leaf).to(leaf) for part, leaf in zip(parts, like, strict=True)]


def _refuse_singular(residual: float) -> None:
    if residual > MAX_RESIDUAL:
        raise InvalidSolutionError(
            f"the linear system is singular: {residual:.0%} of the right-hand side is out of its "
            "reach; the answer does not determine its derivative there"
        )


def _neumann(product: Product, w: Vector, terms: int, tolerance: float) -> tuple[Vector, float]:
    """`sum_k (I - K)^k w`, and the residual: the next term, no larger than about the last."""
    total, term, first = w, w, norm(w)
    last = first
    for _ in range(terms - 1):
        if last <= tolerance * first:
            break
        term = plus(term, -1.0, product(term))
        last = norm(term)
        total = plus(total, 1.0, term)
    if not last <= MAX_GROWTH_OF_TERMS * first:  # also when it is no number
        raise InvalidSolutionError(
            f"the Neumann series does not converge: its {terms} terms grow from norm {first:.3g} "
            f"to {last:.3g}, so that the last step is no contraction there; use ReverseUnroll, "
            "FG2U, fewer terms, or smaller inner steps"
        )
    return total, last / first if terms > 1 else 0.0  # of one term nothing is promised


def _conjugate_gradient(
    product: Product, w: Vector, terms: int, tolerance: float
) -> tuple[Vector, float]:
    """Hestenes and Stiefel (1952)."""
    u = [torch.zeros_like(part) for part in w]
    residual, direction = w, w
    squared, goal = dot(w, w), tolerance**2 * dot(w, w)
    previous: tuple[Vector, Vector] | None = None
    for _ in range(terms):
        image = product(direction)
        if previous is not None:
            _check_symmetric(direction, image, *previous)
        curvature = dot(direction, image)
        if not curvature > 0:
            raise InvalidSolutionError(
                f"conjugate gradients need a positive matrix, got d'K d = {curvature:.3g}: the "
                "end of the inner loop is no minimum there; use Implicit, ReverseUnroll or FG2U"
            )
        u = plus(u, squared / curvature, direction)
        residual = plus(residual, -squared / curvature, image)
        last, squared = squared, dot(residual, residual)
        if squared <= goal:
            break
        previous = direction, image
        direction = plus(residual, squared / last, direction)
    return u, norm(residual) / norm(w)


def _check_symmetric(a: Vector, image_of_a: Vector, b: Vector, image_of_b: Vector) -> None:
    one, other = dot(a, image_of_b), dot(b, image_of_a)
    scale = norm(a) * norm(image_of_b) + norm(b) * norm(image_of_a)
    if not abs(one - other) <= MAX_ASYMMETRY * scale:
        raise InvalidSolutionError(
            f"conjugate gradients need a symmetric matrix, but a'K b = {one:.3g} and "
            f"b'K a = {other:.3g}: the step is not plain gradient descent; use Implicit or Neumann"
        )


def _gmres(product: Product, w: Vector, terms: int, tolerance: float) -> tuple[Vector, float]:
    """Saad and Schultz (1986), without restarts."""
    length = norm(w)
    basis = [[part / length for part in w]]
    hessenberg = torch.zeros((terms + 1, terms), dtype=torch.float64)
    goal = torch.zeros(terms + 1, dtype=torch.float64)
    goal[0] = length
    weights = torch.zeros(0, dtype=torch.float64)
    for k in range(terms):
        image = product(basis[k])
        size = norm(image)
        for _ in range(2):  # twice is enough (Giraud, Langou, Rozloznik 2005)
            for j, unit in enumerate(basis):
                along = dot(unit, image)
                hessenberg[j, k] += along
                image = plus(image, -along, unit)
        hessenberg[k + 1, k] = norm(image)
        square = hessenberg[: k + 2, : k + 1]
        weights = torch.linalg.lstsq(square, goal[: k + 2]).solution
        residual = float(torch.linalg.norm(square @ weights - goal[: k + 2]))
        if residual <= tolerance * length:
            break
        if float(hessenberg[k + 1, k]) <= 1e-14 * size:  # nothing new to come
            _refuse_singular(residual / length)
            break
        basis.append([part / float(hessenberg[k + 1, k]) for part in image])
    u = [torch.zeros_like(part) for part in w]
    for weight, unit in zip(weights.tolist(), basis, strict=False):
        u = plus(u, weight, unit)
    return u, residual / length
