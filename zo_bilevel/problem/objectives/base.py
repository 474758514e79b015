"""Outer objectives: what is minimised, and its exact derivatives in the inner solution.

Every objective offers its value, its gradient in `(theta, x)`, and its Hessian along tangent
directions, so that a sketch of the inner solver is enough for a hypergradient or a Gauss-Newton
model. `x` is the flat scaled vector of the space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, final

import numpy as np

from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.support.arrays import FloatArray


class OuterObjective(Protocol):
    """The outer objective `f(theta, phi)` of one problem.

    `is_vector` tells whether its derivatives in theta are known: then methods look at the whole
    inner solution, otherwise only at the loss.
    """

    is_vector: bool

    def value(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> float:
        """The loss, a finite number or NaN."""
        ...

    def gradient(
        self, theta: FloatArray, x: FloatArray, context: OuterContext
    ) -> tuple[FloatArray, FloatArray]:
        """Derivatives in theta, shape `(m,)`, and explicitly in x, shape `(N,)`."""
        ...

    def hessian_product(
        self,
        theta: FloatArray,
        x: FloatArray,
        theta_tangents: FloatArray,
        x_tangents: FloatArray,
        context: OuterContext,
    ) -> tuple[FloatArray, FloatArray]:
        """Hessian of f applied to b tangents `(m, b)` and `(N, b)`: its parts in theta and x."""
        ...


@final
class OuterContext:
    """What an objective needs to know beside numbers: the space and theta's structure."""

    __slots__ = ("layout", "space")

    def __init__(self, space: Space, layout: ThetaLayout) -> None:
        self.space = space
        self.layout = layout


class ThetaObjective(ABC):
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
    def gradient(
        self,
        theta: FloatArray,
        x: FloatArray,
        context: OuterContext,  # noqa: ARG002
    ) -> tuple[FloatArray, FloatArray]:
        """The derivative in theta, and zero explicitly in x."""
        return self.theta_gradient(theta), np.zeros(x.size)

    @final
    def hessian_product(
        self,
        theta: FloatArray,
        x: FloatArray,  # noqa: ARG002
        theta_tangents: FloatArray,
        x_tangents: FloatArray,
        context: OuterContext,  # noqa: ARG002
    ) -> tuple[FloatArray, FloatArray]:
        """The Hessian product in theta, and zero in x."""
        return self.theta_hessian_product(theta, theta_tangents), np.zeros_like(x_tangents)


@final
class Identity(ThetaObjective):
    """The inner solution is the loss: a scalar black box."""

    is_vector = False

    def theta_value(self, theta: FloatArray) -> float:
        """The inner solution itself."""
        return float(theta[0])

    def theta_gradient(self, theta: FloatArray) -> FloatArray:  # noqa: ARG002 - always the same
        """One."""
        return np.ones(1)

    def theta_hessian_product(self, theta: FloatArray, tangents: FloatArray) -> FloatArray:  # noqa: ARG002
        """Zero."""
        return np.zeros_like(tangents)
