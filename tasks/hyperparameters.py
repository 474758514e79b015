"""Hyper-parameters of a small network's training, differentiable and as a true black box.

phi are a learning rate for each layer, the weight decay and a momentum for each stretch of the
training; the inner loop trains a two-layer network on few images with some wrong labels; the
outer objective is the cross-entropy on validation images. With `through="sklearn"` the inner
solver is scikit-learn's MLPClassifier, which can only be run.
"""

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from zo_bilevel.adapters.torch_unroll.deferred import Deferred
from zo_bilevel.adapters.torch_unroll.functional_training import (
    FunctionalSGD,
    FunctionalTraining,
    minibatches,
)
from zo_bilevel.problem.objectives.cross_entropy import CrossEntropy
from zo_bilevel.problem.parameters import Log, Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.errors import InputError
from zo_bilevel.tasks.digits import NUM_CLASSES, accuracy, load_digits

WRONG_LABELS = 0.2
LAYERS = ("hidden", "output")


@final
@dataclass(frozen=True, slots=True)
class Size:
    """What a size of the task means.

    Args:
        hidden: Width of the network.
        num_steps: Inner steps T.
        num_train: Training images.
        num_stretches: Stretches of constant momentum.
    """

    hidden: int
    num_steps: int
    num_train: int
    num_stretches: int = 4


SIZES = {"smoke": Size(8, 8, 60), "small": Size(32, 100, 200), "full": Size(256, 1000, 400, 20)}


@final
class Training:
    """Data, network and objective of one size.

    Args:
        size: Its size.
        device: Where all of it lives.
    """

    def __init__(self, size: Size, device: str) -> None:
        digits = load_digits(num_train=size.num_train).to(device)
        images, labels = digits.train
        generator = torch.Generator().manual_seed(0)
        wrong = torch.rand(len(labels), generator=generator) < WRONG_LABELS
        drawn = torch.randint(NUM_CLASSES, (len(labels),), generator=generator)
        self.size = size
        self.images = images.flatten(1)
        self.labels = torch.where(wrong, drawn, labels.cpu()).to(device)
        self.validation, self.test = digits.validation, digits.test
        network = torch.nn.Sequential()
        network.add_module("hidden", torch.nn.Linear(self.images.shape[1], size.hidden))
        network.add_module("tanh", torch.nn.Tanh())
        network.add_module("output", torch.nn.Linear(size.hidden, NUM_CLASSES))
        rule = FunctionalSGD(self._rates, self._momentum, "weight_decay")
        self.training = FunctionalTraining(network.to(device), _loss, rule, fresh=True)
        batches = minibatches(self.images, self.labels, size=min(32, len(self.labels)))
        self.loop = self.training.unroll(size.num_steps, batches=batches)

    def _rates(self, phi: Mapping[str, Any], t: int) -> dict[str, Any]:  # noqa: ARG002
        return {
            f"{layer}.{kind}": phi["learning_rates"][place]
            for place, layer in enumerate(LAYERS)
            for kind in ("weight", "bias")
        }

    def _momentum(self, phi: Mapping[str, Any], t: int) -> Any:  # noqa: ANN401
        return phi["momentum"][t * self.size.num_stretches // self.size.num_steps]

    def outer(self, weights: Any, phi: Any) -> torch.Tensor:  # noqa: ANN401, ARG002
        """Cross-entropy on the validation images."""
        return self._cross_entropy(weights, self.validation)

    def held_out(self, weights: Any, phi: Any) -> torch.Tensor:  # noqa: ANN401, ARG002
        """Cross-entropy on the test images, which nothing is tuned on."""
        return self._cross_entropy(weights, self.test)

    def _cross_entropy(self, weights: Any, part: Any) -> torch.Tensor:  # noqa: ANN401
        images, labels = part
        logits = self.training.model(weights)(images.flatten(1))
        return torch.nn.functional.cross_entropy(logits, labels)

    def test_error(self, phi: Mapping[str, Any]) -> float:
        """Share of test images that a newly trained network gets wrong."""
        images, labels = self.test
        weights = self.loop(phi, seed=1 << 33)
        with torch.no_grad():
            return 1.0 - accuracy(self.training.model(weights)(images.flatten(1)), labels)


def _loss(model: Any, batch: Any, phi: Any) -> torch.Tensor:  # noqa: ANN401, ARG001
    images, labels = batch
    return torch.nn.functional.cross_entropy(model(images), labels)


@final
class _SklearnSolver:
    """The same training through scikit-learn: log-probabilities on images of one part."""

    def __init__(self, data: Deferred, size: Size, part: str) -> None:
        self.data, self.size, self.part = data, size, part

    def __call__(self, phi: Mapping[str, Any], *, seed: int) -> NDArray[np.float64]:
        networks = importlib.import_module("sklearn.neural_network")
        few_steps = importlib.import_module("sklearn.exceptions").ConvergenceWarning
        model = networks.MLPClassifier(
            (self.size.hidden,),
            activation="tanh",
            solver="sgd",
            alpha=phi["weight_decay"],
            learning_rate_init=phi["learning_rate"],
            momentum=phi["momentum"],
            max_iter=max(1, self.size.num_steps // 4),
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", few_steps)  # the steps are meant to be few
            model.fit(self.data.built.images.numpy(), self.data.built.labels.numpy())
        images = getattr(self.data.built, self.part)[0].flatten(1).numpy()
        scores = np.full((len(images), NUM_CLASSES), np.log(1e-12))
        scores[:, model.classes_] = np.log(np.maximum(model.predict_proba(images), 1e-12))
        return scores


def task(size: str = "small", through: str = "torch", device: str = "cpu") -> Task:
    """Tune a training.

    Args:
        size: "smoke" (seconds), "small" (a minute) or "full" (a GPU).
        through: "torch" (differentiable) or "sklearn" (a black box; one learning rate, one
            momentum).
        device: "cpu" or "cuda", for torch.

    Returns:
        The task; its `error` is the share of wrong test images.

    Raises:
        InputError: If an option breaks its rule.
    """
    if size not in SIZES:
        raise InputError(f"size must be one of {sorted(SIZES)}, got {size!r}")
    if through not in ("torch", "sklearn"):
        raise InputError(f"through must be 'torch' or 'sklearn', got {through!r}")
    inner = Deferred(Training, size=SIZES[size], device=device)
    name = f"hyperparameters-{size}-{through}"
    decay, summary = Log(1e-5, 1.0), "learning rates, weight decay and momentum of a small network"
    if through == "sklearn":
        space = Space(learning_rate=Log(1e-4, 1.0), weight_decay=decay, momentum=Real(0.0, 0.99))
        inner = Deferred(Training, size=SIZES[size], device="cpu")
        problem, held_out = (
            Problem(
                space,
                _SklearnSolver(inner, SIZES[size], part),
                CrossEntropy(getattr(inner.built, part)[1].numpy()),
                name=f"{name}-{part}",
            )
            for part in ("validation", "test")
        )
        summary += ", through scikit-learn"
        return Task("hyperparameters", summary, problem, held_out=held_out, max_solves=100)
    space = Space(
        learning_rates=Log(1e-4, 1.0, shape=(len(LAYERS),)),
        weight_decay=decay,
        momentum=Real(0.0, 0.99, shape=(SIZES[size].num_stretches,)),
    )
    problem = Problem(space, inner, inner.outer, name=name)
    return Task(
        "hyperparameters",
        summary,
        problem,
        held_out=Problem(
            space,
            inner,
            lambda theta, phi: inner.built.loop.outer(inner.built.held_out)(theta, phi),
            name=f"{name}-test",
        ),
        error=lambda phi: inner.built.test_error(phi),
        max_solves=500,
    )
