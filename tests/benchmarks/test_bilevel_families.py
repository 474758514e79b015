"""The families of the public bilevel benchmark: derivatives and solvers against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from benchmarks.bilevel_families import METHODS, derivatives, outer_gradient, quadratic


def hypergradient(family, phi):
    """Of h, by the inner optimum in closed form."""
    size, every = len(phi), slice(None)
    unit, zero = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    H = torch.stack([derivatives(family, zero, phi, e, every)[1] for e in unit])
    theta = -torch.linalg.solve(H, derivatives(family, zero, phi, zero, every)[0])
    in_theta, in_phi = outer_gradient(family, theta, phi, every)
    v = torch.linalg.solve(H, in_theta)
    return in_phi - derivatives(family, theta, phi, v, every)[2]


def test_the_implicit_gradient_is_the_slope_of_the_value_function():
    family = quadratic(0)
    phi = torch.from_numpy(np.random.default_rng(0).normal(size=20))
    along = torch.from_numpy(np.random.default_rng(1).normal(size=20))
    slope = (family.value(phi + 1e-3 * along) - family.value(phi - 1e-3 * along)) / 2e-3
    assert float(hypergradient(family, phi) @ along) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "rate", "steps"),
    [("SOBA", 0.001, 150), ("stocBiO", 0.1, 15), ("AID, warm, conjugate gradients", 0.03, 15)],
)
def test_solvers_descend(name, rate, steps):
    family = quadratic(0)
    *_, phi = itertools.islice(METHODS[name](family, rate, 0), steps)
    assert family.value(phi) < 0.8 * family.value(family.phi)
