"""A module as a function of its weights, in as many threads at once as one likes."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping
from typing import Any, final

import torch

from zo_bilevel.adapters.torch_unroll.functional_buffers import KeptBuffers

Flags = tuple[bool, ...]
Skeleton = tuple[Flags, torch.nn.Module, KeptBuffers]


@final
class FunctionalModule:
    """Calls a module with other weights and leaves it alone.

    `torch.func.functional_call` puts the weights into the module for the time of a call, where
    another thread would see them. Here every thread has a skeleton of its own: the same buffers and
    frozen weights, and nothing where the other weights go, so that it takes no memory.

    Example:
        >>> module = torch.nn.Linear(2, 1, bias=False)
        >>> call = FunctionalModule(module, ["weight"])
        >>> call({"weight": torch.tensor([[2.0, 3.0]])}, torch.ones(2))
        tensor([5.])
    """

    def __init__(self, module: torch.nn.Module, names: Iterable[str]) -> None:
        self.module, self.names = module, tuple(names)
        self._skeletons: dict[int, Skeleton] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "names": self.names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def __call__(self, weights: Mapping[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """The module's answer with these weights.

        Raises:
            InputError: If the module writes to one of its buffers, by name.
        """
        _, skeleton, buffers = self._skeleton()
        with buffers.unchanged():
            return torch.func.functional_call(skeleton, dict(weights), args, kwargs)

    def _skeleton(self) -> Skeleton:
        """This thread's, made anew when the module was put into training or evaluation mode."""
        flags = tuple(part.training for part in self.module.modules())
        thread = threading.get_ident()
        kept = self._skeletons.get(thread)
        if kept is None or kept[0] != flags:
            skeleton = self._empty_copy()
            kept = self._skeletons[thread] = flags, skeleton, KeptBuffers(skeleton)
        return kept

    def _empty_copy(self) -> torch.nn.Module:
        given = set(self.names)
        shared: dict[int, Any] = {id(buffer): buffer for buffer in self.module.buffers()}
        for name, weight in self.module.named_parameters(remove_duplicate=False):
            if name in given:
                empty = torch.nn.Parameter(weight.detach().to("meta"), weight.requires_grad)
                shared.setdefault(id(weight), empty)
            else:
                shared.setdefault(id(weight), weight)
        return copy.deepcopy(self.module, shared)
