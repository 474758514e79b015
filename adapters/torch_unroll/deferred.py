"""An inner loop that is built on first use, in whichever process uses it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, final

from zo_bilevel.adapters.torch_unroll.state import fresh_torch_state
from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll


class Built(Protocol):
    """What a builder returns: a loop and its outer objective."""

    loop: TorchUnroll

    def outer(self, theta: Any, phi: Any) -> Any:  # noqa: ANN401 - tensors in the user's structure
        """The outer objective, in the loop's own pytree and dtypes."""
        ...


@functools.lru_cache(maxsize=8)
def _built(build: Callable[..., Any], options: tuple[tuple[str, Any], ...]) -> Any:  # noqa: ANN401
    with fresh_torch_state():
        return build(**dict(options))


@final
class Deferred:
    """Names a loop instead of holding it: data and pretrained models never travel to workers.

    It is built in float32 on the CPU with torch's generator at seed 0, whatever the program around
    it has set or drawn, so that it is the same in every process.

    Args:
        build: A function that workers can import; returns a `Built`.
        **options: Its arguments, hashable.

    Example:
        >>> import torch
        >>> class Halving:
        ...     def __init__(self, num_steps):
        ...         self.loop = TorchUnroll(
        ...             lambda phi: torch.ones(1), lambda w, phi, t, batch: w * phi["a"], num_steps
        ...         )
        ...     def outer(self, theta, phi):
        ...         return theta.sum()
        >>> Deferred(Halving, num_steps=3)({"a": 0.5})
        tensor([0.1250])
    """

    def __init__(self, build: Callable[..., Built], **options: Any) -> None:  # noqa: ANN401
        self.build = build
        self.options = tuple(sorted(options.items()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.options)
        return f"Deferred({getattr(self.build, '__qualname__', self.build)}, {shown})"

    @property
    def built(self) -> Any:  # noqa: ANN401 - the builder's own class
        """The loop and its objective; built once a process."""
        return _built(self.build, self.options)

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401
        """Run the loop."""
        return self.built.loop(phi, seed=seed)

    def solve_batch(self, phis: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401
        """Run the loop at many phi at once."""
        return self.built.loop.solve_batch(phis, seed=seed)

    def draws(self, phi: Mapping[str, Any]) -> bool:
        """Whether a run draws random numbers."""
        return bool(self.built.loop.draws(phi))

    def jvp(self, phi: Any, tangents: Any, *, seed: int | None = None) -> Any:  # noqa: ANN401
        """Run it with tangents."""
        return self.built.loop.jvp(phi, tangents, seed=seed)

    def pull_trajectory(self, phi: Any, cotangent: Any, **options: Any) -> Any:  # noqa: ANN401
        """Run it and pull a gradient back."""
        return self.built.loop.pull_trajectory(phi, cotangent, **options)

    def pull_fixed_point(self, phi: Any, cotangent: Any, **options: Any) -> Any:  # noqa: ANN401
        """Run it and pull a gradient back through its end."""
        return self.built.loop.pull_fixed_point(phi, cotangent, **options)

    def outer(self, theta: Any, phi: Any) -> Any:  # noqa: ANN401
        """The outer objective, for `Problem`."""
        return self.built.loop.outer(self.built.outer)(theta, phi)
