"""One run of a loop of torch steps: phi as tensors, and everything random fixed by the seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
import torch

from zo_bilevel.adapters.torch_unroll.leaves import (
    Leaves,
    Tree,
    arranged,
    check_not_written,
    take_apart,
)
from zo_bilevel.adapters.torch_unroll.state import seeded_generators
from zo_bilevel.adapters.torch_unroll.words import explained
from zo_bilevel.support.replay import Position, repeatable

if TYPE_CHECKING:
    from zo_bilevel.adapters.torch_unroll.lost_derivatives import Watch
    from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll

Phi: TypeAlias = dict[str, Any]


@final
class Run:
    """One run of a loop: phi as tensors, and everything random fixed by the seed.

    Args:
        loop: The loop.
        phi: Named values.
        seed: Seed of the solve.
        is_plain: Whether no derivative is taken, so that the state may be complex.
    """

    def __init__(
        self,
        loop: TorchUnroll,
        phi: Mapping[str, Any],
        seed: int | None,
        *,
        is_plain: bool = False,
    ) -> None:
        self.loop = loop
        self.seed = 0 if seed is None else int(seed)
        self.phi = loop.tensors(phi)
        self.is_plain = is_plain
        self.watch: Watch | None = None

    @contextmanager
    def random(self) -> Iterator[Position]:
        """Seed torch's own generators (dropout) for the time of one run."""
        device = torch.device(self.loop.device)
        with repeatable(self.seed) as position, seeded_generators(self.seed, device):
            yield position

    def initial(self, phi: Phi) -> Leaves:
        """Theta 0."""
        with explained("init"):
            return self._taken_apart(self.loop.initial_state(phi, self.seed), "init")

    def next(self, theta: Leaves, phi: Phi, t: int, batch: Any) -> Leaves:  # noqa: ANN401
        """Theta after step t."""
        written = [leaf._version for leaf in theta.all]
        watched = self.watch.step(theta, t) if self.watch else nullcontext()
        with explained(f"step {t}"), watched:
            tree = self.loop.step(theta.tree, phi, t, batch)
        after = self._taken_apart(tree, f"step {t}")
        check_not_written(theta, written, t)
        return arranged(theta, after, t)

    def _taken_apart(self, tree: Tree, what: str) -> Leaves:
        return take_apart(tree, what, may_be_complex=self.is_plain)

    def batch(self, t: int) -> Any:  # noqa: ANN401 - the user's batch
        """The batch of step t; the same every time."""
        if self.loop.batches is None:
            return None
        state = np.random.SeedSequence([self.seed, t]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) >> 1)
        return self.loop.batches(t, generator)

    def observed(self, theta: Leaves, phi: Phi) -> Leaves:
        """The part of theta that is the inner solution."""
        if self.loop.read is None:
            return theta
        with explained("read"):
            return self._taken_apart(self.loop.read(theta.tree, phi), "read")
