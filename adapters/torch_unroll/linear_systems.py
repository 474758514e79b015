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
MAX_RESIDUAL = 0.5
"""Relative; what is left of it is missing in the hypergradient, or more."""
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


def solved(solver: Solver, product: Product, w: Vector, terms: int, tolerance: float) -> Vector:
    """Solve `K u = w` to a relative residual, or as far as the terms go.

    Args:
        solver: "neumann" for K near the identity, "conjugate_gradient" for a symmetric positive
            K, "gmres" for any invertible one.
        product: From u to `K u`.
        w: Right-hand side.
        terms: Products at the most, >= 1.
        tolerance: Relative size of the residual, >= 0.

    Returns:
        u.

    Raises:
        InvalidSolutionError: If the series diverges, or K is singular or not what the solver needs.
    """
    if norm(w) == 0.0:
        return w
    method = {"neumann": _neumann, "conjugate_gradient": _conjugate_gradient, "gmres": _gmres}
    return method[solver](product, w, terms, tolerance)


def _neumann(product: Product, w: Vector, terms: int, tolerance: float) -> Vector:
    """`sum_k (I - K)^k w`."""
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
    if terms > 1:  # the residual is the next term, no larger than about the last
        _say_what_is_left("the Neumann series", terms, last / first)
    return total


def _conjugate_gradient(product: Product, w: Vector, terms: int, tolerance: float) -> Vector:
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
    _say_what_is_left("conjugate gradients", terms, norm(residual) / norm(w))
    return u


def _say_what_is_left(what: str, terms: int, residual: float) -> None:
    """Warn of a system that is far from solved."""
    if not residual <= MAX_RESIDUAL:
        warnings.warn(
            f"{what} left {residual:.0%} of the right-hand side after {terms} products: the "
            "hypergradient is wrong by as much or more, up to all of it where the last step hardly "
            "moves; give more terms, a last step with a larger rate, or use ReverseUnroll",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_symmetric(a: Vector, image_of_a: Vector, b: Vector, image_of_b: Vector) -> None:
    one, other = dot(a, image_of_b), dot(b, image_of_a)
    scale = norm(a) * norm(image_of_b) + norm(b) * norm(image_of_a)
    if not abs(one - other) <= MAX_ASYMMETRY * scale:
        raise InvalidSolutionError(
            f"conjugate gradients need a symmetric matrix, but a'K b = {one:.3g} and "
            f"b'K a = {other:.3g}: the step is not plain gradient descent; use Implicit or Neumann"
        )


def _gmres(product: Product, w: Vector, terms: int, tolerance: float) -> Vector:
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
            if residual > MAX_RESIDUAL * length:
                raise InvalidSolutionError(
                    f"the linear system is singular: {residual / length:.0%} of the right-hand "
                    "side is out of its reach; the answer does not determine its derivative there"
                )
            break
        basis.append([part / float(hessenberg[k + 1, k]) for part in image])
    _say_what_is_left("GMRES", terms, residual / length)
    u = [torch.zeros_like(part) for part in w]
    for weight, unit in zip(weights.tolist(), basis, strict=False):
        u = plus(u, weight, unit)
    return u
