"""Outer objectives: what is minimised, and its exact derivatives in the inner solution.

Every objective offers its value, its gradient in `(theta, x)`, and its Hessian along tangent
directions, so that a sketch of the inner solver is enough for a hypergradient or a Gauss-Newton
model. `x` is the flat scaled vector of the space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias, final

import numpy as np

from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.support.arrays import FloatArray

Pair: TypeAlias = tuple[FloatArray, FloatArray]
"""Of theta and of x."""
NO_DERIVATIVE = "this objective has no derivative; use problem.scalar"


class OuterObjective(ABC):
    """The outer objective `f(theta, phi)` of one problem.

    `is_vector` tells whether its derivatives in theta are known: then methods look at the whole
    inner solution, otherwise only at the loss. `is_in_steps` tells whether it is known to be
    constant between jumps: then no model of it tells where it is least.
    """

    is_vector = is_in_steps = False

    @abstractmethod
    def value(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> float:
        """The loss, a finite number or NaN."""

    def gradient(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> Pair:
        """Derivatives in theta, shape `(m,)`, and explicitly in x, shape `(N,)`."""
        raise NotImplementedError(NO_DERIVATIVE)

    def value_and_gradient(
        self, theta: FloatArray, x: FloatArray, context: OuterContext
    ) -> tuple[float, Pair]:
        """Both, at no more than the price of the gradient where one gives the other."""
        return self.value(theta, x, context), self.gradient(theta, x, context)

    def hessian_product(self, at: Pair, tangents: Pair, context: OuterContext) -> Pair:
        """Hessian of f at (theta, x) applied to b tangents `(m, b)` and `(N, b)`: both parts."""
        raise NotImplementedError(NO_DERIVATIVE)


@final
class OuterContext:
    """What an objective needs to know beside numbers: the space and theta's structure."""

    __slots__ = ("layout", "space")

    def __init__(self, space: Space, layout: ThetaLayout) -> None:
        self.space = space
        self.layout = layout


class ThetaObjective(OuterObjective):
    """An outer objective of theta alone: nothing depends on x but through it."""

    is_vector = True

    @abstractmethod
    def theta_value(self, theta: FloatArray) -> float:
        """The loss of a flat inner solution."""

    @abstractmethod
    def theta_gradient(self, theta: FloatArray) -> FloatArray:
        """Its derivative, shape `(m,)`."""

    @abstractmethod
    def theta_hessian_product(self, theta: FloatArray, tangents: FloatArray) -> FloatArray:
        """Its Hessian applied to b tangents, `(m, b)`."""

    @final
    def value(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> float:  # noqa: ARG002
        """The loss."""
        return self.theta_value(theta)

    @final
    def gradient(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> Pair:  # noqa: ARG002
        """The derivative in theta, and zero explicitly in x."""
        return self.theta_gradient(theta), np.zeros(x.size)

    @final
    def hessian_product(self, at: Pair, tangents: Pair, context: OuterContext) -> Pair:  # noqa: ARG002
        """The Hessian product in theta, and zero in x."""
        return self.theta_hessian_product(at[0], tangents[0]), np.zeros_like(tangents[1])


@final
class Identity(OuterObjective):
    """The inner solution is the loss: a scalar black box."""

    def value(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> float:  # noqa: ARG002
        """The inner solution itself."""
        return float(theta[0])
