"""A bilevel quadratic whose solution, hypergradient and minimum are known exactly.

theta(phi) = A phi + c + (kappa / 2) (B phi)^2, squared entry by entry
f(theta, phi) = 1/2 ||theta - target||^2 + (rho / 2) ||phi||^2
hypergradient = J' (theta - target) + rho phi,  J = A + kappa diag(B phi) B

A = U diag(s) V' with Haar-random orthonormal factors and s log-spaced from 1 down to
1/condition; B has orthonormal columns. The target is theta at a known phi, the truth.
With kappa = 0 a difference of theta is exact at any radius; with kappa > 0 the forward
difference along v with radius mu errs by exactly (kappa / 2) mu (B v)^2, the central
one by nothing.

Source: standard; Haar factors as in Mezzadri, Notices AMS 54, 2007.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError

FloatArray = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class QuadraticForm:
    """The quadratic; all its methods take phi of shape (..., num_parameters).

    Attributes:
        linear: A, shape (num_outputs, num_parameters).
        offset: c, shape (num_outputs,).
        curving: B, shape (num_outputs, num_parameters).
        curvature: kappa, >= 0.
        penalty: rho, >= 0.
        truth: the phi behind the target, shape (num_parameters,).
        target: theta(truth), shape (num_outputs,).
    """

    linear: FloatArray
    offset: FloatArray
    curving: FloatArray
    curvature: float
    penalty: float
    truth: FloatArray
    target: FloatArray

    def __post_init__(self) -> None:
        for name in ("curvature", "penalty"):
            value = getattr(self, name)
            if not value >= 0.0:
                raise InputError(f"{name} must be >= 0, got {value}")

    def solution(self, phi: FloatArray) -> FloatArray:
        """The inner solution theta(phi), shape (..., num_outputs)."""
        return _solution(phi, self.linear, self.offset, self.curving, self.curvature)

    def jacobian_product(self, phi: FloatArray, direction: FloatArray) -> FloatArray:
        """J v, the exact directional derivative of theta, shape (..., num_outputs)."""
        bend = self.curvature * (phi @ self.curving.T)
        return direction @ self.linear.T + bend * (direction @ self.curving.T)

    def forward_difference_error(self, direction: FloatArray, radius: float) -> FloatArray:
        """(theta(phi + mu v) - theta(phi)) / mu - J v, the same at every phi."""
        bend: FloatArray = np.square(direction @ self.curving.T)
        return 0.5 * self.curvature * radius * bend

    def loss(self, phi: FloatArray) -> FloatArray:
        """The outer objective at theta(phi), shape (...)."""
        residual = self.solution(phi) - self.target
        square = np.square(residual).sum(axis=-1)
        return np.asarray(0.5 * (square + self.penalty * np.square(phi).sum(axis=-1)))

    def hypergradient(self, phi: FloatArray) -> FloatArray:
        """The exact gradient of loss, shape (..., num_parameters)."""
        residual = self.solution(phi) - self.target
        bend = self.curvature * (phi @ self.curving.T)
        pulled = residual @ self.linear + (bend * residual) @ self.curving
        return pulled + self.penalty * phi

    def minimum(self) -> FloatArray:
        """The phi of least loss, shape (num_parameters,).

        Raises:
            InputError: if both curvature and penalty are positive: no closed form.
        """
        if self.penalty == 0.0:
            return self.truth
        if self.curvature > 0.0:
            raise InputError(
                "minimum has a closed form only if curvature or penalty is 0, got "
                f"curvature={self.curvature}, penalty={self.penalty}"
            )
        left, values, right = np.linalg.svd(self.linear, full_matrices=False)
        filtered = values / (values**2 + self.penalty)
        return np.asarray((filtered * ((self.target - self.offset) @ left)) @ right)


def _solution(
    phi: FloatArray,
    linear: FloatArray,
    offset: FloatArray,
    curving: FloatArray,
    curvature: float,
) -> FloatArray:
    bend: FloatArray = np.square(phi @ curving.T)
    return phi @ linear.T + offset + 0.5 * curvature * bend


def _orthonormal_columns(
    generator: np.random.Generator, num_rows: int, num_columns: int
) -> FloatArray:
    """Haar-random orthonormal columns: QR with the signs of R's diagonal put back."""
    factor, triangle = np.linalg.qr(generator.standard_normal((num_rows, num_columns)))
    return np.asarray(factor * np.sign(np.diagonal(triangle)))


def _check_arguments(num_parameters: int, num_outputs: int, condition: float) -> None:
    whole_number("num_parameters", num_parameters, least=1)
    whole_number("num_outputs", num_outputs, least=num_parameters)
    if not condition >= 1.0:
        raise InputError(f"condition must be >= 1, got {condition}")


def make_quadratic_form(
    num_parameters: int,
    *,
    seed: int,
    num_outputs: int | None = None,
    condition: float = 100.0,
    curvature: float = 0.0,
    penalty: float = 0.0,
) -> QuadraticForm:
    """Draw a quadratic: the same seed, the same numbers.

    Args:
        num_parameters: N, >= 1.
        seed: of the generator that draws everything.
        num_outputs: length of theta, >= N; None means N.
        condition: largest over smallest singular value of A, >= 1. The Hessian's
            condition is its square.
        curvature: kappa, >= 0.
        penalty: rho, >= 0.

    Raises:
        InputError: if an argument is out of its range.
    """
    num_outputs = num_parameters if num_outputs is None else num_outputs
    _check_arguments(num_parameters, num_outputs, condition)
    generator = np.random.default_rng(seed)
    left = _orthonormal_columns(generator, num_outputs, num_parameters)
    right = _orthonormal_columns(generator, num_parameters, num_parameters)
    linear = (left * np.geomspace(1.0, 1.0 / condition, num_parameters)) @ right.T
    curving = _orthonormal_columns(generator, num_outputs, num_parameters)
    truth = generator.standard_normal(num_parameters)
    offset = generator.standard_normal(num_outputs)
    target = _solution(truth, linear, offset, curving, curvature)
    for array in (linear, offset, curving, truth, target):
        array.setflags(write=False)
    return QuadraticForm(linear, offset, curving, curvature, penalty, truth, target)
