"""Data condensation: a few images on which a fresh network learns as if from all of them.

phi are the pixels of the condensed images; the inner loop trains a freshly initialised ConvNet on
them; the outer objective is its cross-entropy on real training images.

Source: arXiv 2406.14095, section 4.1 (3-layer ConvNet, unrolled depth 100, 32 directions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from zo_bilevel.adapters.deferred import Deferred
from zo_bilevel.adapters.functional_training import FunctionalSGD, FunctionalTraining
from zo_bilevel.errors import InputError
from zo_bilevel.parameters import Real
from zo_bilevel.problem import Problem
from zo_bilevel.space import Space
from zo_bilevel.task import Task
from zo_bilevel.tasks.digits import NUM_CLASSES, SKLEARN_SIDE, accuracy, load_digits

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
        learning_rate: Of the inner SGD.
    """

    width: int
    num_steps: int
    num_train: int | None
    learning_rate: float = 0.1


SIZES = {"smoke": Size(8, 10, 200), "small": Size(16, 30, None), "full": Size(128, 100, None)}


def convnet(side: int, width: int) -> torch.nn.Module:
    """Three blocks of convolution, normalisation, SiLU and pooling, then a linear layer.

    Not ReLU: with its kinks the trained network is so rough in the images that differences of the
    loss over 1e-3 of a pixel's spread had nothing to do with the exact hypergradient.

    Args:
        side: Pixels along one side of an image.
        width: Channels of each layer.
    """
    layers: list[torch.nn.Module] = []
    channels = 1
    for _ in range(3):
        # normalised over channels too: each channel alone would lose its mean on 2 x 2 pixels
        layers += [
            torch.nn.Conv2d(channels, width, 3, padding=1),
            torch.nn.GroupNorm(1, width),
            torch.nn.SiLU(),
        ]
        if side >= SMALLEST_POOLED:
            layers.append(torch.nn.AvgPool2d(2))
            side //= 2
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
        rule = FunctionalSGD(size.learning_rate, momentum=0.5)
        self.training = FunctionalTraining(network, self._loss, rule, fresh=True)
        self.loop = self.training.unroll(size.num_steps)

    def _loss(self, model: Any, batch: Any, phi: Mapping[str, Any]) -> torch.Tensor:  # noqa: ANN401, ARG002
        logits = model(phi["images"][:, None])
        return torch.nn.functional.cross_entropy(logits, self.labels)

    def outer(self, weights: Any, phi: Any) -> torch.Tensor:  # noqa: ANN401, ARG002
        """Cross-entropy on the real training images."""
        images, labels = self.digits.train
        return torch.nn.functional.cross_entropy(self.training.model(weights)(images), labels)

    def test_accuracy(self, phi: Mapping[str, Any], num_networks: int = 5) -> float:
        """Mean accuracy on test images of networks that none of the search has seen.

        Args:
            phi: The condensed images by name.
            num_networks: Fresh initialisations.

        Returns:
            A share in [0, 1].
        """
        images, labels = self.digits.test
        found = []
        for seed in range(num_networks):
            weights = self.loop(phi, seed=(1 << 33) + seed)  # beyond the seeds of solves
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
        return {"images": chosen.clip(-LIMIT, LIMIT)}


LIMIT = 4.0
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
    if not isinstance(images_per_class, int) or images_per_class < 1:
        raise InputError(f"images_per_class must be >= 1, got {images_per_class!r}")
    inner = Deferred(
        Condensation,
        images_per_class=images_per_class,
        size=SIZES[size],
        path=path,
        device=device,
    )
    side = SKLEARN_SIDE if path is None else load_digits(path).side
    shape = (NUM_CLASSES * images_per_class, side, side)
    space = Space(images=Real(-LIMIT, LIMIT, shape=shape))
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
