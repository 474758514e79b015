"""Small differentiable inner loops that several tests use."""

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll
from zo_bilevel.run.evaluator import Evaluator

NUM_STEPS = 12


class SmallNetwork:
    """matrix random two-layer network trained on mini-batches; phi: initial shift, decay, rate."""

    def __init__(self, seed, num_steps=NUM_STEPS, hidden=3, inputs=4):
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.inputs, self.targets = draw(24, inputs), draw(24)
        self.start = {"first": 0.5 * draw(inputs, hidden), "second": draw(hidden)}
        self.loop = TorchUnroll(
            self.init, self.step, num_steps, batches=self.batch, dtype=torch.float64
        )
        self.space = zb.Space(
            shift=zb.Real(-1, 1, shape=(hidden,)), decay=zb.Log(1e-4, 1.0), rate=zb.Log(1e-3, 1.0)
        )
        self.problem = zb.Problem(self.space, self.loop, self.loop.outer(self.outer))
        self.phi = {"shift": np.linspace(-0.5, 0.5, hidden), "decay": 0.05, "rate": 0.2}

    def batch(self, t, generator):
        return torch.randperm(24, generator=generator)[:8]

    def predict(self, theta, rows):
        return torch.tanh(self.inputs[rows] @ theta["first"]) @ theta["second"]

    def loss(self, theta, phi, rows):
        misfit = ((self.predict(theta, rows) - self.targets[rows]) ** 2).mean()
        return misfit + phi["decay"] * (theta["first"] ** 2).sum()

    def init(self, phi):
        return {"first": self.start["first"], "second": self.start["second"] + phi["shift"]}

    def step(self, theta, phi, t, rows):
        gradient = torch.func.grad(self.loss)(theta, phi, rows)
        return {name: theta[name] - phi["rate"] * gradient[name] for name in theta}

    def outer(self, theta, phi):
        misfit = ((self.predict(theta, slice(None)) - self.targets) ** 2).mean()
        return misfit + 0.1 * phi["rate"] + 0.2 * (phi["shift"] ** 2).sum()

    def gradient(self, estimator, seed=0, draw=0):
        """Scaled hypergradient: `seed` fixes the mini-batches, `draw` the directions."""
        x = self.space.encode(self.phi)
        plan = estimator.plan(self.space, x, np.random.default_rng([7, draw]), (0,))
        evaluator = Evaluator(self.problem, zb.Serial(), seed)
        evaluations = evaluator.evaluate(plan.points)
        return estimator.sketch(plan, evaluations, evaluator.bound).hypergradient(evaluator.bound)


def quadratic_loop(num_steps, rate=0.4):
    """Gradient descent on `1/2 (theta - M phi)' H (theta - M phi)`; its end is `M phi`.

    Returns the loop, M and H.
    """
    generator = np.random.default_rng(3)
    matrix = torch.from_numpy(generator.normal(size=(4, 3)))
    root = generator.normal(size=(4, 4))
    H = torch.from_numpy(root @ root.T / 4 + 0.5 * np.eye(4))

    def init(phi):
        return torch.zeros(4, dtype=torch.float64)

    def step(theta, phi, t, batch):
        return theta - rate * H @ (theta - matrix @ phi["p"])

    return TorchUnroll(init, step, num_steps, dtype=torch.float64), matrix.numpy(), H.numpy()


def loop_of(step, init=None, num_steps=3, **options):
    def zeros(phi):
        return {"w": torch.zeros(2, dtype=torch.float64)}

    return TorchUnroll(init or zeros, step, num_steps, dtype=torch.float64, **options)


def hypergradient_of(loop, estimator=None, **phi):
    space = zb.Space({name: zb.Real(-10, 10) for name in phi})
    problem = zb.Problem(space, loop, loop.outer(lambda theta, phi: (theta["w"] ** 2).sum()))
    return zb.hypergradient(problem, phi, estimator=estimator or zb.FG2U(len(phi)))
