"""Cross-entropy of logits against labels."""

from typing import Any, final

import numpy as np

from zo_bilevel.problem.objectives.base import ThetaObjective
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InnerSolverError, InputError


@final
class CrossEntropy(ThetaObjective):
    """Mean cross-entropy of logits, the last axis over classes.

    Args:
        labels: Integer class of each row of the logits, shape `(rows,)`, >= 0.

    Raises:
        InputError: If the labels are empty or no whole numbers >= 0.

    Example:
        >>> objective = CrossEntropy([0, 1])
        >>> logits = np.array([2.0, 0.0, 0.0, 2.0])
        >>> round(objective.loss(logits), 6)
        0.126928
    """

    def __init__(self, labels: Any) -> None:  # noqa: ANN401 - any array
        array = np.asarray(labels)
        if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu" or array.min() < 0:
            raise InputError(
                f"labels must be a non-empty vector of whole numbers >= 0, got {labels!r}"
            )
        self.labels = array.astype(np.int64)

    def check(self, layout: ThetaLayout) -> None:
        """Refuse logits whose rows or classes do not fit the labels.

        Raises:
            InnerSolverError: Naming the shape and the labels.
        """
        rows, classes = self.labels.size, layout.size // self.labels.size
        shape = layout.shapes[0]
        if (
            layout.names
            or layout.size % rows
            or classes <= self.labels.max()
            or (len(shape) > 1 and shape[-1] != classes)
        ):
            raise InnerSolverError(
                f"the inner solver returned {layout.describe()}, but CrossEntropy has {rows} "
                f"labels up to {self.labels.max()}: logits must have shape ({rows}, classes)"
            )

    def loss(self, theta: FloatArray) -> float:
        """The loss of logits of shape `(rows, classes)`, or flat."""
        logits, shifted = self._shifted(np.ravel(theta))
        picked = logits[np.arange(self.labels.size), self.labels]
        return float(np.mean(shifted - picked))

    def _shifted(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        logits = theta.reshape(self.labels.size, -1)
        top = logits.max(axis=1)
        total: FloatArray = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return logits, total

    def _probabilities(self, theta: FloatArray) -> FloatArray:
        logits, total = self._shifted(theta)
        return np.asarray(np.exp(logits - total[:, None]))

    def theta_value(self, theta: FloatArray) -> float:
        """The loss."""
        return self.loss(theta)

    def theta_gradient(self, theta: FloatArray) -> FloatArray:
        """`(softmax - one_hot) / rows`."""
        residual = self._probabilities(theta)
        residual[np.arange(self.labels.size), self.labels] -= 1.0
        return residual.ravel() / self.labels.size

    def theta_hessian_product(self, theta: FloatArray, tangents: FloatArray) -> FloatArray:
        """`(diag(p) - p p') T / rows` row by row."""
        probabilities = self._probabilities(theta)[:, :, None]
        rows = tangents.reshape(*probabilities.shape[:2], -1)
        mean = (probabilities * rows).sum(axis=1, keepdims=True)
        product: FloatArray = probabilities * (rows - mean) / self.labels.size
        return product.reshape(tangents.shape)
