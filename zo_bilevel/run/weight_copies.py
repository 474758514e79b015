"""Many copies of a network's weights in one pass, each with the averages that it moves itself."""

from collections.abc import Callable
from typing import Any

import torch

AVERAGES = ("running_mean", "running_var")
"""Buffers that batch normalization moves in training: each copy of the weights has its own."""


class _Called(torch.nn.Module):
    """Calls a closure while `functional_call` holds other weights in the module."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, closure: Callable[[], Any]) -> Any:  # noqa: ANN401
        return closure()


def losses_of_copies(
    module: torch.nn.Module, closure: Callable[[], Any], copies: dict[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, dict[torch.Tensor, torch.Tensor]]:
    """Losses of the closure at each of `copies`, of shape `(number, *weight.shape)`.

    Returns:
        Losses, of shape `(number,)`, and of each buffer of the module's parts in training its
        values after the pass, one a copy or one for all; the module stays as it is.
    """
    number = len(next(iter(copies.values())))
    names: dict[torch.Tensor, str]
    names = {weight: name for name, weight in module.named_parameters(prefix="module")}
    held = {names[weight]: values for weight, values in copies.items()}
    buffers, shared = {}, {}
    for path, part in module.named_modules(prefix="module"):
        for name, buffer in part.named_buffers(path, recurse=False):
            if part.training:
                buffers[name] = buffer
                if name.endswith(AVERAGES):
                    held[name] = buffer.repeat(number, *[1] * buffer.ndim)
                else:
                    shared[name] = buffer.clone()
    called = _Called(module)

    def loss(held: dict[str, torch.Tensor]) -> Any:  # noqa: ANN401
        both = held | shared
        value = torch.func.functional_call(called, both, (closure,))
        return value, {name: both[name] for name in buffers}

    try:
        losses, after = torch.func.vmap(loss, randomness="same")(held)
    except RuntimeError as error:
        error.add_note(
            "module= runs the closure under torch.func.vmap: a module in training may change no "
            f"buffers in place by its inputs but {' and '.join(AVERAGES)}, and no value may be "
            "read as a number"
        )
        raise
    # what does not depend on the weights comes expanded
    values = {buffers[name]: v if v.stride(0) else v[:1] for name, v in after.items()}
    return losses, values
