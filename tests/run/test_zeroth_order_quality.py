"""At equal forward passes a network learns as much as from MeZO, written out here."""

import copy
import statistics

import pytest
import torch

import zo_bilevel as zb

SEEDS, STEPS, RATE, RADIUS = 5, 40, 0.01, 1e-3


def task(shift):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(48, 10, generator=generator)
    return inputs, ((inputs[:, 0] + shift * inputs[:, 1]) > 0).long()


def loss_of(network, shift):
    inputs, labels = task(shift)
    return torch.nn.functional.cross_entropy(network(inputs), labels)


@pytest.fixture(scope="module")
def trained():
    """A network of 210 weights that knows one task."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    adam = torch.optim.Adam(network.parameters(), 0.03)
    for _ in range(60):
        adam.zero_grad()
        loss_of(network, 0.3).backward()
        adam.step()
    return network


def gains(trained, make):
    """How much the loss of another task fell, by seed."""
    inputs, labels = task(-3.0)
    found = []
    for seed in range(SEEDS):
        network = copy.deepcopy(trained)

        def loss(network=network):
            return torch.nn.functional.cross_entropy(network(inputs), labels)

        with torch.no_grad():
            before, step = float(loss()), make(network, seed)
            for _ in range(STEPS):
                step(loss)
            found.append(before - float(loss()))
    return found


def mezo(network, seed):
    """Algorithm 1 of Malladi et al. (2023), arXiv 2305.17333, as it stands."""
    weights, seeds = list(network.parameters()), iter(range(10**6 * seed, 10**9))

    def move(seed, distance):
        generator = torch.Generator().manual_seed(seed)
        for weight in weights:
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=distance)

    def step(closure):
        seed = next(seeds)
        move(seed, RADIUS)
        above = closure()
        move(seed, -2 * RADIUS)
        below = closure()
        move(seed, RADIUS)
        move(seed, -RATE * float(above - below) / (2 * RADIUS))

    return step


@pytest.fixture(scope="module")
def gained_by_mezo(trained):
    return gains(trained, mezo)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["low_rank", "rademacher", "gaussian"])
def test_a_network_learns_as_much_as_from_mezo(trained, gained_by_mezo, kind):
    def share(factor):
        """Of a step whose scale is wrong by a factor; medians of the seeds."""

        def ours(network, seed):
            options = {"perturbation": kind, "refresh": 5, "seed": seed, "radius": RADIUS}
            step = zb.ZerothOrderSGD(network.parameters(), abs(factor) * RATE, **options).step
            return lambda loss: step(lambda: loss() if factor > 0 else -loss())

        return statistics.median(gains(trained, ours)) / statistics.median(gained_by_mezo)

    assert 0.75 < share(1.0) < 1.3
    assert share(0.5) < 0.75
    assert share(2.0) > 1.3
    assert share(-1.0) < 0.0
