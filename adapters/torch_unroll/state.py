"""Torch's process-wide settings as a new process has them, whatever the program did before."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.RLock()


def _renew_lock() -> None:
    global _ONE_AT_A_TIME
    _ONE_AT_A_TIME = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def seeded_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators from `seed` for the time of a block; afterwards as they were.

    They belong to the process, so that blocks of several threads wait for each other.

    Example:
        >>> with seeded_generators(3, torch.device("cpu")):
        ...     first = torch.rand(1)
        >>> with seeded_generators(3, torch.device("cpu")):
        ...     first == torch.rand(1)
        tensor([True])
    """
    with _ONE_AT_A_TIME, torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cpu":  # torch.manual_seed formats a traceback, in case of a GPU to come
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        yield


@contextmanager
def fresh_torch_state(seed: int = 0) -> Iterator[None]:
    """For the time of a block: float32, on the CPU, with gradients, and random numbers from `seed`.

    A network made inside is the same in every process. Outside nothing changes: random numbers
    that the program draws afterwards are those it would have drawn anyway.

    Args:
        seed: Of torch's own CPU generator.

    Example:
        >>> def weight():
        ...     with fresh_torch_state(3):
        ...         return torch.nn.Linear(1, 1).weight.item()
        >>> first = weight()
        >>> _ = torch.rand(7)
        >>> weight() == first
        True
    """
    generator = torch.default_generator
    with _ONE_AT_A_TIME:
        state, dtype = generator.get_state(), torch.get_default_dtype()
        generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
                yield
        finally:
            torch.set_default_dtype(dtype)
            generator.set_state(state)
