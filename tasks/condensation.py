"""Data condensation: a few images on which a fresh network learns as if from all of them.

phi are the pixels of the condensed images; the inner loop trains a freshly initialised ConvNet on
them, another one in each solve; the outer objective is its cross-entropy on a mini-batch of real
training images.

Source: arXiv 2406.14095, section 4.1 (3-layer ConvNet, unrolled depth 100, 32 directions).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from zo_bilevel.adapters.torch_unroll.deferred import Deferred
from zo_bilevel.adapters.torch_unroll.functional_training import FunctionalSGD, FunctionalTraining
from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.errors import InputError
from zo_bilevel.tasks.digits import NUM_CLASSES, accuracy, image_side, load_digits

SMALLEST_POOLED = 4
"""Maps of fewer pixels a side are not pooled."""

PUBLISHED = {
    f"MNIST test accuracy %, {count} a class, {method} (arXiv 2406.14095)": value
    for count, row in (
        (1, (73.76, 65.98, 68.37, 82.44, 92.32)),
        (10, (94.05, 94.97, 95.75, 96.12, 96.79)),
    )
    for method, value in zip(("TRGU", "Hessian-Free", "Neumann", "(FG)2U", "RGU"), row, strict=True)
}


@final
@dataclass(frozen=True, slots=True)
class Size:
    """What a size of the task means.

    Args:
        width: Channels of each layer.
        num_steps: Inner steps T.
        num_train: Real training images; `None` for all.
        batch: Real images that judge one trained network.
    """

    width: int
    num_steps: int
    num_train: int | None
    batch: int = 256


SIZES = {
    "smoke": Size(8, 10, 200, 64),
    "small": Size(16, 20, None),
    "full": Size(128, 100, None, 1024),
}


def convnet(side: int, width: int) -> torch.nn.Module:
    """Three blocks of convolution, pooling, normalisation and SiLU, then a linear layer.

    Not ReLU: with its kinks the trained network is so rough in the images that differences of the
    loss over 1e-3 of a pixel's spread had nothing to do with the exact hypergradient.
    """
    layers: list[torch.nn.Module] = []
    channels = 1
    for _ in range(3):
        layers.append(torch.nn.Conv2d(channels, width, 3, padding=1))
        if side >= SMALLEST_POOLED:
            # before what follows, which is most of the work of a directional derivative
            layers.append(torch.nn.AvgPool2d(2))
            side //= 2
        # normalised over channels too: each channel alone would lose its mean on 2 x 2 pixels
        layers += [torch.nn.GroupNorm(1, width), torch.nn.SiLU()]
        channels = width
    return torch.nn.Sequential(
        *layers, torch.nn.Flatten(), torch.nn.Linear(width * side**2, NUM_CLASSES)
    )


@final
class Condensation:
    """The inner loop, the outer objective and the test of a condensed set.

    Args:
        images_per_class: Condensed images of each class.
        size: Network and depth.
        path: Folder with MNIST's IDX files, or `None`.
        device: Where all of it lives.
    """

    def __init__(self, images_per_class: int, size: Size, path: str | None, device: str) -> None:
        self.digits = load_digits(path, size.num_train).to(device)
        self.labels = torch.arange(NUM_CLASSES, device=device).repeat_interleave(images_per_class)
        network = convnet(self.digits.side, size.width).to(device)
        rule = FunctionalSGD(LEARNING_RATE / images_per_class, momentum=0.5)
        self.size = size
        self.training = FunctionalTraining(network, self._loss, rule, fresh=True)
        weight = next(network.parameters())
        self.loop = TorchUnroll(
            self.init,
            self.step,
            size.num_steps,
            read=self.read,
            dtype=weight.dtype,
            device=str(weight.device),
        )

    def _loss(self, model: Any, batch: Any, phi: Mapping[str, Any]) -> torch.Tensor:  # noqa: ANN401, ARG002
        logits = model(phi["images"][:, None])
        return torch.nn.functional.cross_entropy(logits, self.labels)

    def init(self, phi: Any, seed: int = 0) -> dict[str, Any]:  # noqa: ANN401
        """A fresh network, and the real images that will judge it."""
        count = len(self.digits.train[1])
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(count, generator=generator)[: self.size.batch]
        return {**self.training.init(phi, seed), "rows": rows.to(self.labels.device)}

    def step(self, theta: Any, phi: Any, t: int, batch: Any) -> dict[str, Any]:  # noqa: ANN401
        """One step on the condensed images."""
        return {**self.training.step(theta, phi, t, batch), "rows": theta["rows"]}

    def read(self, theta: Any, phi: Any) -> dict[str, Any]:  # noqa: ANN401, ARG002
        """The trained weights, and which images judge them."""
        return {"weights": theta["weights"], "rows": theta["rows"]}

    def outer(self, theta: Any, phi: Any) -> torch.Tensor:  # noqa: ANN401, ARG002
        """Cross-entropy on the mini-batch of real training images."""
        images, labels = (part[theta["rows"]] for part in self.digits.train)
        logits = self.training.model(theta["weights"])(images)
        return torch.nn.functional.cross_entropy(logits, labels)

    def test_accuracy(self, phi: Mapping[str, Any], num_networks: int = 5) -> float:
        """Mean accuracy on test images of networks that none of the search has seen.

        Returns:
            A share in [0, 1].
        """
        images, labels = self.digits.test
        train = self.training.unroll(self.size.num_steps)
        found = []
        for seed in range(num_networks):
            weights = train(phi, seed=(1 << 33) + seed)  # beyond the seeds of solves
            with torch.no_grad():
                found.append(accuracy(self.training.model(weights)(images), labels))
        return sum(found) / num_networks

    def start(self, seed: int) -> dict[str, Any]:
        """A random real image of each class, as the paper starts."""
        images, labels = self.digits.train
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(labels), generator=generator).to(labels.device)
        each = len(self.labels) // NUM_CLASSES
        rows = [order[labels[order] == digit][:each] for digit in range(NUM_CLASSES)]
        chosen = images[torch.cat(rows), 0].double().cpu().numpy()
        return {"images": chosen.clip(-PIXEL_BOUND, PIXEL_BOUND)}


LEARNING_RATE = 0.1
"""Of the inner SGD with one image a class; shared out among more images. With ten images a class
and 0.1, hypergradients of different networks have no direction in common (mean cosine -0.01; 0.25
with 0.01), and not even the exact one goes down.
"""
PIXEL_BOUND = 4.0
"""Bound of a pixel, in standard deviations."""


def task(
    images_per_class: int = 1,
    size: str = "small",
    path: str | None = None,
    device: str = "cpu",
) -> Task:
    """Condense digits.

    Args:
        images_per_class: 1 or 10 in the paper.
        size: "smoke" (seconds), "small" (minutes on a CPU) or "full" (a GPU).
        path: Folder with MNIST's IDX files; `None` for scikit-learn's digits.
        device: "cpu" or "cuda".

    Returns:
        The task; its `error` is one minus the test accuracy of fresh networks.

    Raises:
        InputError: If an option breaks its rule.
    """
    if size not in SIZES:
        raise InputError(f"size must be one of {sorted(SIZES)}, got {size!r}")
    images_per_class = whole_number("images_per_class", images_per_class, least=1)
    inner = Deferred(
        Condensation,
        images_per_class=images_per_class,
        size=SIZES[size],
        path=path,
        device=device,
    )
    side = image_side(path)
    shape = (NUM_CLASSES * images_per_class, side, side)
    space = Space(images=Real(-PIXEL_BOUND, PIXEL_BOUND, shape=shape))
    name = f"condensation-{images_per_class}-{size}"
    return Task(
        name="condensation",
        summary="a few images to train a network on; differentiable inner loop",
        problem=Problem(space, inner, inner.outer, name=name),
        start=lambda seed: inner.built.start(seed),
        error=lambda phi: 1.0 - inner.built.test_accuracy(phi),
        published=PUBLISHED,
        max_solves=2000,
    )
