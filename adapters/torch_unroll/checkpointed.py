"""Reverse mode in little memory: some states are kept, the steps between them are run again.

With T steps in pieces of k, T / k states and the graph of k steps are alive at a time; the
steps are run once more. Pieces may be cut again: each level costs one more run.

Source: Griewank and Walther (2000), "Algorithm 799: revolve"; Chen et al. (2016), "Training Deep
Nets with Sublinear Memory Cost", arXiv 1604.06174.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

import torch

from zo_bilevel.adapters.torch_unroll.leaves import Leaves
from zo_bilevel.adapters.torch_unroll.run import Phi, Run
from zo_bilevel.adapters.torch_unroll.words import explained
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.replay import position

if TYPE_CHECKING:
    from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll

Grads: TypeAlias = "list[torch.Tensor | None]"

MAX_LEVELS = 8


class Tape:
    """Pulls a gradient in the last state back through a loop whose states are not all kept.

    Args:
        run: The run, inside its block of random numbers.
        phi: Phi, its tensors with gradients.
        leaves: Those tensors, by name.
        pieces: Lengths of pieces, from the longest; the shortest are differentiated at once.
    """

    def __init__(
        self, run: Run, phi: Phi, leaves: dict[str, torch.Tensor], pieces: tuple[int, ...]
    ) -> None:
        self.run, self.phi, self.pieces = run, phi, pieces
        self.inputs = list(leaves.values())
        self.found: Grads = [None] * len(self.inputs)

    def forward(self, state: Leaves, first: int, last: int, piece: int) -> tuple[Leaves, list[Any]]:
        """Run steps `first` to `last` without a graph.

        Returns:
            The last state; for each piece its place, state and random numbers at its start.
        """
        kept = []
        with torch.no_grad():
            for t in range(first, last):
                if (t - first) % piece == 0:
                    kept.append((t, state, _random_state(self.run)))
                state = self.run.next(state, self.phi, t, self.run.batch(t))
        return state, kept

    def backward(self, kept: list[Any], last: int, weights: Grads, level: int = 0) -> Grads:
        """From the gradient in the state after step `last` to that before the first piece kept."""
        while kept:
            first, state, random = kept.pop()
            _set_random_state(self.run, random)
            if level + 1 < len(self.pieces):
                _, inner = self.forward(state, first, last, self.pieces[level + 1])
                weights = self.backward(inner, last, weights, level + 1)
            else:
                weights = self._through_graph(state, first, last, weights)
            last = first
        return weights

    def _through_graph(self, state: Leaves, first: int, last: int, weights: Grads) -> Grads:
        start = state.with_leaves([leaf.detach().requires_grad_() for leaf in state.moving])
        with torch.enable_grad():
            theta = start
            for t in range(first, last):
                theta = self.run.next(theta, self.phi, t, self.run.batch(t))
        grads = pulled(theta, weights, [*start.moving, *self.inputs], keep=False)
        self.add(grads[len(start.moving) :])
        return grads[: len(start.moving)]

    def add(self, grads: Grads) -> None:
        """Add to the gradient in phi."""
        self.found = [added(a, b) for a, b in zip(self.found, grads, strict=True)]


def pulled(
    outputs: Leaves, weights: Grads, inputs: list[torch.Tensor], *, keep: bool = True
) -> Grads:
    """`weights' d outputs / d inputs`; `None` where there is no way."""
    pairs = [
        (o, w)
        for o, w in zip(outputs.moving, weights, strict=True)
        if o.requires_grad and w is not None
    ]
    if not pairs:
        return [None] * len(inputs)
    tensors, kept = zip(*pairs, strict=True)
    with explained("a step"):
        grads = torch.autograd.grad(tensors, inputs, kept, retain_graph=keep, allow_unused=True)
    return list(grads)


def added(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    """The sum of two gradients, either of which may be missing."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def pieces_for(run: Run, state: Leaves, phi: Phi, memory: int | str) -> tuple[int, ...]:
    """Lengths of pieces that keep to a limit with as few repeated steps as possible.

    Returns:
        One length a level, from the longest; empty when the whole graph fits.

    Raises:
        InputError: If not even one step at a time fits.
    """
    total = run.loop.num_steps
    if memory == "sqrt":
        return (math.ceil(math.sqrt(total)),)
    limit = int(memory)
    step, kept = _bytes_of_a_step(run, state, phi), _bytes_of(state.all)
    if total * step <= limit:
        return ()
    for levels in range(1, MAX_LEVELS + 1):
        # levels * (states of one cut) + graph of the last piece, least where all are alike
        counts = max(2, math.ceil((total * step / kept) ** (1 / (levels + 1))) if kept else 2)
        pieces = tuple(max(1, math.ceil(total / counts**level)) for level in range(1, levels + 1))
        if levels * counts * kept + pieces[-1] * step <= limit:
            return pieces
    raise InputError(
        f"memory must be at least about {step + MAX_LEVELS * 2 * kept:,} bytes for this loop (a "
        f"step's graph has {step:,}, a state {kept:,}), got {limit:,}"
    )


@final
@dataclass(frozen=True, slots=True)
class StepMemory:
    """What one step of a loop needs.

    Args:
        state_numbers: Numbers in the state.
        state: Bytes of the state.
        graph: Bytes that the graph of one step keeps alive.
    """

    state_numbers: int
    state: int
    graph: int


def memory_of_a_step(loop: TorchUnroll, phi: dict[str, Any]) -> StepMemory:
    """Find it out with tensors that have shapes but no numbers, if the step allows that."""
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
    )

    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return _measured_step(loop, phi)
    except (DataDependentOutputException, DynamicOutputShapeException):
        return _measured_step(loop, phi)  # the step looks at numbers: it has to have some


def _measured_step(loop: TorchUnroll, phi: dict[str, Any]) -> StepMemory:
    run = Run(loop, phi, 0)
    with run.random():
        leaves: Phi = {
            name: torch.zeros_like(value).requires_grad_() if torch.is_tensor(value) else value
            for name, value in run.phi.items()
        }
        state = run.initial(leaves).detached()
        count = sum(leaf.numel() for leaf in state.all)
        return StepMemory(count, _bytes_of(state.all), _bytes_of_a_step(run, state, leaves))


def _bytes_of_a_step(run: Run, state: Leaves, phi: Phi) -> int:
    """What the graph of one step keeps alive, each storage counted once."""
    start = state.with_leaves([leaf.detach().requires_grad_() for leaf in state.moving])
    random = _random_state(run)
    with torch.enable_grad():
        after = run.next(start, phi, 0, run.batch(0))
    _set_random_state(run, random)
    seen: dict[int, int] = {}
    nodes = {leaf.grad_fn for leaf in after.moving if leaf.grad_fn is not None}
    left = list(nodes)
    while left:  # saved_tensors_hooks would be shorter, but torch.func.grad refuses them
        node = left.pop()
        for name in (name for name in dir(node) if name.startswith("_saved_")):
            if isinstance(saved := getattr(node, name), torch.Tensor):
                storage = saved.untyped_storage()
                seen[storage._cdata] = storage.nbytes()
        fresh = {parent for parent, _ in node.next_functions if parent is not None} - nodes
        nodes |= fresh
        left += fresh
    return sum(seen.values()) + _bytes_of(after.all)


def _bytes_of(leaves: list[torch.Tensor]) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves)


def _random_state(run: Run) -> Any:  # noqa: ANN401 - torch's own
    device = torch.device(run.loop.device)
    of_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    place = position()
    return torch.get_rng_state(), of_device, 0 if place is None else place.draws


def _set_random_state(run: Run, state: Any) -> None:  # noqa: ANN401 - torch's own
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], torch.device(run.loop.device))
    if (place := position()) is not None:
        place.draws = state[2]
