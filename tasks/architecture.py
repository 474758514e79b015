"""Architecture search: mixture weights over the operations of a small cell, then the best of each.

phi are scores, one for each operation on each edge of a cell; the inner loop trains the mixed
network on one half of the training images; the outer objective is its cross-entropy on the
validation images. The discretised network keeps the best operation of each edge and is trained
anew.

Source: Liu, Simonyan, Yang (2019), "DARTS: Differentiable Architecture Search", arXiv 1806.09055.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from zo_bilevel.adapters.torch_unroll.deferred import Deferred
from zo_bilevel.adapters.torch_unroll.functional_training import (
    FunctionalSGD,
    FunctionalTraining,
    minibatches,
)
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.errors import InputError, unknown_name_message
from zo_bilevel.tasks.digits import NUM_CLASSES, accuracy, load_digits

OPERATIONS = ("none", "skip", "average", "conv3", "conv1")
EDGES = ((0, 1), (0, 2), (1, 2))
"""From node, to node: an input, one inner node, an output."""
WEIGHT_BOUND = 3.0


@final
@dataclass(frozen=True, slots=True)
class Size:
    """What a size of the task means.

    Args:
        width: Channels.
        num_steps: Inner steps T.
        num_train: Training images; `None` for all.
        retrain_steps: Steps of the discretised network.
    """

    width: int
    num_steps: int
    num_train: int | None
    retrain_steps: int


SIZES = {
    "smoke": Size(8, 4, 200, 60),
    "small": Size(8, 30, None, 200),
    "full": Size(32, 200, None, 2000),
}


class Cell(torch.nn.Module):
    """A stem, a cell whose edges mix their operations by `softmax(scores)`, a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(1, width, 3, padding=1)
        self.conv3 = torch.nn.ModuleList(torch.nn.Conv2d(width, width, 3, padding=1) for _ in EDGES)
        self.conv1 = torch.nn.ModuleList(torch.nn.Conv2d(width, width, 1) for _ in EDGES)
        self.norm = torch.nn.GroupNorm(1, width)
        self.head = torch.nn.Linear(width, NUM_CLASSES)

    def forward(self, images: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            images: Shape `(rows, 1, side, side)`.
            mixture: Share of each operation on each edge, `(edges, operations)`.
        """
        nodes = [torch.nn.functional.avg_pool2d(self.stem(images), 2)]
        for node in (1, 2):
            parts = [
                self._edge(edge, nodes[start], mixture[edge])
                for edge, (start, end) in enumerate(EDGES)
                if end == node
            ]
            nodes.append(self.norm(torch.stack(parts).sum(dim=0)))
        logits: torch.Tensor = self.head(torch.relu(nodes[2]).mean(dim=(2, 3)))
        return logits

    def _edge(self, edge: int, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        average = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
        found: torch.Tensor = (
            shares[1] * x
            + shares[2] * average
            + shares[3] * self.conv3[edge](torch.relu(x))
            + shares[4] * self.conv1[edge](torch.relu(x))
        )
        return found


@final
class Search:
    """The inner loop, the outer objective and what comes of the discretised cell.

    Args:
        size: Its size.
        path: Folder with MNIST's IDX files, or `None`.
        device: Where all of it lives.
    """

    def __init__(self, size: Size, path: str | None, device: str) -> None:
        self.size = size
        self.digits = load_digits(path, size.num_train).to(device)
        rule = FunctionalSGD(0.2, momentum=0.9)
        self.training = FunctionalTraining(
            Cell(size.width).to(device), self._loss, rule, fresh=True
        )
        self.batches = minibatches(*self.digits.train, size=min(64, len(self.digits.train[1])))
        self.loop = self.training.unroll(size.num_steps, batches=self.batches)

    def _loss(self, model: Any, batch: Any, phi: Mapping[str, Any]) -> torch.Tensor:  # noqa: ANN401
        images, labels = batch
        logits = model(images, torch.softmax(phi["scores"], dim=1))
        return torch.nn.functional.cross_entropy(logits, labels)

    def outer(self, weights: Any, phi: Any) -> torch.Tensor:  # noqa: ANN401
        """Cross-entropy on the validation images."""
        return self._loss(self.training.model(weights), self.digits.validation, phi)

    def discretised(self, phi: Mapping[str, Any]) -> list[str]:
        """Best operation of each edge; "none" is not a choice, as in DARTS."""
        return [OPERATIONS[1 + int(np.argmax(row[1:]))] for row in np.asarray(phi["scores"])]

    def test_error(self, phi: Mapping[str, Any]) -> float:
        """Share of test images that the discretised network gets wrong after training anew."""
        return self.retrained_error(self.discretised(phi))

    def retrained_error(self, operations: Sequence[str], num_networks: int = 3) -> float:
        """Mean share of wrong test images of a cell of one operation an edge, trained anew.

        Args:
            operations: Name of the operation of each edge; any cell can be compared so.
            num_networks: Fresh initialisations.

        Raises:
            InputError: If an operation is unknown or there is not one for each edge.
        """
        if len(operations) != len(EDGES):
            raise InputError(f"operations must name one for each of {len(EDGES)} edges")
        scores = np.full((len(EDGES), len(OPERATIONS)), -1e4)
        for edge, operation in enumerate(operations):
            if operation not in OPERATIONS:
                raise InputError(unknown_name_message("operation", operation, OPERATIONS))
            scores[edge, OPERATIONS.index(operation)] = 0.0
        train = self.training.unroll(self.size.retrain_steps, batches=self.batches)
        images, labels = self.digits.test
        mixture = torch.softmax(torch.as_tensor(scores, dtype=images.dtype), dim=1)
        wrong = []
        for seed in range(num_networks):
            weights = train({"scores": scores}, seed=(1 << 33) + seed)  # beyond those of solves
            with torch.no_grad():
                logits = self.training.model(weights)(images, mixture.to(images.device))
            wrong.append(1.0 - accuracy(logits, labels))
        return sum(wrong) / num_networks


def task(size: str = "small", path: str | None = None, device: str = "cpu") -> Task:
    """Search a cell.

    Args:
        size: "smoke" (seconds), "small" (minutes on a CPU) or "full" (a GPU).
        path: Folder with MNIST's IDX files; `None` for scikit-learn's digits.
        device: "cpu" or "cuda".

    Returns:
        The task; its `error` is the share of wrong test images of the discretised network.

    Raises:
        InputError: If the size is unknown.
    """
    if size not in SIZES:
        raise InputError(f"size must be one of {sorted(SIZES)}, got {size!r}")
    inner = Deferred(Search, size=SIZES[size], path=path, device=device)
    scores = Real(-WEIGHT_BOUND, WEIGHT_BOUND, shape=(len(EDGES), len(OPERATIONS)))
    problem = Problem(Space(scores=scores), inner, inner.outer, name=f"architecture-{size}")
    return Task(
        name="architecture",
        summary="mixture weights over a cell's operations, then the best of each edge",
        problem=problem,
        error=lambda phi: inner.built.test_error(phi),
        max_solves=500,
    )
