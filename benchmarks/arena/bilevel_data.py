"""Three families of public bilevel problems, on data that ship with scikit-learn."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

F = torch.nn.functional


@dataclasses.dataclass
class Family:
    """A problem: G and F as means over rows, and where to begin."""

    inner: Callable[[Any, Any, Any], Any]
    outer: Callable[[Any, Any, Any], Any]
    rows: tuple[int, int]
    theta: torch.Tensor
    phi: torch.Tensor
    bound: float
    inner_rate: float

    def value(self, phi: torch.Tensor) -> float:
        """h(phi), the inner problem solved to the end."""
        theta, options = (
            self.theta.clone().requires_grad_(),
            {"max_iter": 500, "tolerance_grad": 1e-9},
        )
        solver = torch.optim.LBFGS([theta], line_search_fn="strong_wolfe", **options)

        def closure():
            solver.zero_grad()
            loss = self.inner(theta, phi, slice(None))
            loss.backward()
            return loss

        solver.step(closure)
        return float(self.outer(theta.detach(), phi, slice(None)))


def quadratic(seed):
    """Means of 256 random quadratics in theta and phi, strongly convex in theta."""
    rng = np.random.default_rng(seed)

    def around(*shape):
        """Rows that vary around a common mean."""
        return torch.from_numpy(rng.normal(size=shape) + 0.5 * rng.normal(size=(256, *shape)))

    size, count = 20, 256
    factors = rng.normal(size=(count, size, size)) * np.geomspace(0.1, 1, size) / np.sqrt(size)
    hessians = torch.from_numpy(factors.transpose(0, 2, 1) @ factors) + 0.3 * torch.eye(size)
    cross, target = around(size, size) / np.sqrt(size), around(size)

    def inner(theta, phi, rows):
        pull = cross[rows].mean(0) @ phi
        return 0.5 * theta @ hessians[rows].mean(0) @ theta + theta @ pull

    def outer(theta, phi, rows):
        return 0.5 * ((theta - target[rows].mean(0)) ** 2).sum() + 0.005 * (phi**2).sum()

    zero = torch.zeros(size, dtype=torch.float64)
    return Family(inner, outer, (count, count), zero, zero.clone(), 20.0, 0.2)


def digits(seed):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = torch.from_numpy(images[order] / 16.0), torch.from_numpy(labels[order])
    return images, labels


def regularisation(seed):
    """A penalty for each pixel of a logistic regression on digits, by validation loss."""
    images, labels = digits(seed)
    images = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    known, unseen = slice(0, 300), slice(300, 900)

    def inner(theta, phi, rows):
        x, y = images[known][rows], labels[known][rows]
        penalty = 0.5 * (phi.exp()[:, None] * theta**2).sum()
        return F.cross_entropy(x @ theta, y) + penalty

    def outer(theta, phi, rows):
        return F.cross_entropy(images[unseen][rows] @ theta, labels[unseen][rows])

    theta = torch.zeros((64, 10), dtype=torch.float64)
    phi = torch.full((64,), -3.0, dtype=torch.float64)
    return Family(inner, outer, (300, 600), theta, phi, 6.0, 0.3)


def cleaning(seed):
    """A weight for each training digit, half of whose labels are wrong, by validation loss."""
    images, labels = digits(seed)
    rng = np.random.default_rng(seed)
    wrong = torch.from_numpy(rng.random(400) < 0.5)
    given = torch.where(wrong, torch.from_numpy(rng.integers(10, size=400)), labels[:400])

    def inner(theta, phi, rows):
        losses = F.cross_entropy(images[:400][rows] @ theta, given[rows], reduction="none")
        return (phi[rows].sigmoid() * losses).mean() + 0.005 * (theta**2).sum()

    def outer(theta, phi, rows):
        return F.cross_entropy(images[400:800][rows] @ theta, labels[400:800][rows])

    theta = torch.zeros((64, 10), dtype=torch.float64)
    return Family(inner, outer, (400, 400), theta, torch.zeros(400, dtype=torch.float64), 6.0, 0.5)
