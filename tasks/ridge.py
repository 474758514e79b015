"""The ridge-penalties task: one penalty per feature, tuned on validation data.

Inner: beta(phi) = argmin ||y - X beta||^2 + sum_j exp(phi_j) beta_j^2, solved in the
dual, beta = P X' (X P X' + I)^-1 y with P = diag(exp(-phi)). theta = X_val beta, its
target is y_val. 120 training rows, 300 features of which 20 matter, 400 validation
rows, noise 0.5. Dimensionless, float64.

Source: the project's reference problems, which fixes the generator and its order.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from zo_bilevel.support.errors import InputError

FloatArray = NDArray[np.float64]

NUM_TRAINING_ROWS: Final = 120
NUM_VALIDATION_ROWS: Final = 400
NUM_FEATURES: Final = 300
NUM_TRUE_FEATURES: Final = 20
LABEL_NOISE: Final = 0.5
LARGEST_LOG_PENALTY: Final = 8.0  # phi is clipped to [-8, 8]


@final
@dataclass(frozen=True, slots=True)
class RidgeData:
    """Training and validation data, read-only.

    Attributes:
        inputs: X, shape (120, 300).
        outputs: y, shape (120,).
        validation_inputs: X_val, shape (400, 300).
        validation_outputs: y_val, the target of theta, shape (400,).
        true_weights: w, shape (300,).
    """

    inputs: FloatArray
    outputs: FloatArray
    validation_inputs: FloatArray
    validation_outputs: FloatArray
    true_weights: FloatArray


@cache
def ridge_data() -> RidgeData:
    """The data set, from numpy.random.default_rng(1)."""
    generator = np.random.default_rng(1)
    weights = np.zeros(NUM_FEATURES)
    weights[:NUM_TRUE_FEATURES] = 2.0 * generator.standard_normal(NUM_TRUE_FEATURES)
    inputs = generator.standard_normal((NUM_TRAINING_ROWS, NUM_FEATURES))
    validation = generator.standard_normal((NUM_VALIDATION_ROWS, NUM_FEATURES))
    noise = LABEL_NOISE * generator.standard_normal(NUM_TRAINING_ROWS)
    validation_noise = LABEL_NOISE * generator.standard_normal(NUM_VALIDATION_ROWS)
    outputs = inputs @ weights + noise
    validation_outputs = validation @ weights + validation_noise
    for array in (inputs, outputs, validation, validation_outputs, weights):
        array.setflags(write=False)
    return RidgeData(inputs, outputs, validation, validation_outputs, weights)


def _check_shape(shape: tuple[int, ...]) -> None:
    if not shape or shape[-1] != NUM_FEATURES:
        raise InputError(f"phi must have {NUM_FEATURES} entries, got shape {shape}")


def fit_weights(phi: FloatArray) -> FloatArray:
    """The ridge solution beta, shape (300,); `InputError` if phi is not a vector of 300 numbers.

    Args:
        phi: log-penalties, shape (300,); clipped to [-8, 8].
    """
    phi = np.asarray(phi, dtype=np.float64)
    if phi.ndim != 1:
        raise InputError(f"phi must have {NUM_FEATURES} entries, got shape {phi.shape}")
    _check_shape(phi.shape)
    data = ridge_data()
    bound = LARGEST_LOG_PENALTY
    scaled = data.inputs * np.exp(-np.clip(phi, -bound, bound))
    gram = scaled @ data.inputs.T
    gram[np.diag_indices_from(gram)] += 1.0
    factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    dual = cho_solve(factor, data.outputs, check_finite=False)
    return np.asarray(scaled.T @ dual)


def simulate(phi: FloatArray) -> FloatArray:
    """The predictions on the validation rows, shape (400,), for phi of shape (300,)."""
    return ridge_data().validation_inputs @ fit_weights(phi)


def simulate_tensor(phi: Tensor) -> Tensor:
    """The same for a batch; differentiable, on the device of phi; returns theta, shape (..., 400).

    Args:
        phi: float64 log-penalties, shape (..., 300); clipped to [-8, 8].

    Raises:
        InputError: if phi does not have 300 entries.
    """
    _check_shape(tuple(phi.shape))
    data = ridge_data()
    # Copies: torch would warn about tensors on read-only memory.
    inputs = torch.tensor(data.inputs).to(phi)
    outputs = torch.tensor(data.outputs).to(phi)
    validation = torch.tensor(data.validation_inputs).to(phi)
    bound = LARGEST_LOG_PENALTY
    scaled = inputs * torch.exp(-phi.clamp(-bound, bound))[..., None, :]
    identity = torch.eye(NUM_TRAINING_ROWS, dtype=phi.dtype, device=phi.device)
    factor = torch.linalg.cholesky(scaled @ inputs.T + identity)
    dual = torch.cholesky_solve(outputs[:, None].expand(*phi.shape[:-1], -1, 1), factor)
    weights: Tensor = (scaled.mT @ dual)[..., 0]
    return weights @ validation.T


def target() -> FloatArray:
    """The validation outputs y_val, shape (400,), read-only."""
    return ridge_data().validation_outputs
