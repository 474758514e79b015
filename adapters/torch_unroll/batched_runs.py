"""Many runs of a loop at once, at other phi and one seed: a batch for `Batched`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from zo_bilevel.adapters.torch_unroll.checks import rehearse
from zo_bilevel.adapters.torch_unroll.leaves import leave
from zo_bilevel.adapters.torch_unroll.run import Phi, Run

if TYPE_CHECKING:
    from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll


def run_batch(loop: TorchUnroll, phis: Mapping[str, Any], seed: int | None) -> Any:  # noqa: ANN401
    """Run the loop for every row, under `vmap`."""
    stacked = loop.tensors(phis)
    count = len(next(iter(stacked.values())))
    if count == 1 or not all(isinstance(value, torch.Tensor) for value in stacked.values()):
        # nothing is gained, or a value decides what the step does: one after the other
        rows = [{name: value[k] for name, value in stacked.items()} for k in range(count)]
        return _stacked([loop(row, seed=seed) for row in rows])

    def solution(phi: Phi) -> Any:  # noqa: ANN401 - tensor or dict of tensors
        run = Run(loop, phi, seed, is_plain=True)
        theta = run.initial(run.phi)
        for t in range(loop.num_steps):
            theta = run.next(theta, run.phi, t, run.batch(t))
        return leave(run.observed(theta, run.phi).tree, "read")

    first = Run(loop, {name: value[0] for name, value in stacked.items()}, seed, is_plain=True)
    with torch.no_grad():
        rehearse(first)
        with first.random():
            return torch.func.vmap(solution, randomness="same")(stacked)


def _stacked(found: list[Any]) -> Any:  # noqa: ANN401 - tensor or dict of tensors
    if isinstance(found[0], dict):
        return {name: torch.stack([row[name] for row in found]) for name in found[0]}
    return torch.stack(found)
