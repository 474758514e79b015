"""Whether a module writes to its buffers when it is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch

from zo_bilevel.support.errors import InputError


@final
class KeptBuffers:
    """The buffers of a module, which a call must leave as they are.

    Example:
        >>> module = torch.nn.BatchNorm1d(2)
        >>> with KeptBuffers(module).unchanged():
        ...     _ = module(torch.zeros(3, 2))
        Traceback (most recent call last):
        zo_bilevel.support.errors.InputError: module must not write to its buffers when called, ...
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._places = [
            (f"{path}.{name}" if path else name, part, name, buffer)
            for path, part in module.named_modules()
            for name, buffer in part._buffers.items()
            if buffer is not None
        ]

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Compare before and after a call: which tensors they are, and how often written to.

        Raises:
            InputError: Naming the buffer.
        """
        versions = [_version(buffer) for *_, buffer in self._places]
        yield
        for (path, part, name, buffer), version in zip(self._places, versions, strict=True):
            after = part._buffers.get(name)
            part._buffers[name] = buffer
            if after is not buffer or _version(buffer) != version:
                raise InputError(
                    f"module must not write to its buffers when called, got a write to {path!r}: "
                    "the same phi and seed would give other numbers at each call; put that part "
                    "into eval mode, or keep what it remembers in the state of a TorchUnroll"
                )


def _version(buffer: torch.Tensor) -> int:
    return 0 if buffer.is_inference() else buffer._version
