"""A vectorised function as an inner solver: many solves in one call, in numpy or torch."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np

from zo_bilevel.adapters.function import Style, check_keywords, check_style, refuse_choices
from zo_bilevel.adapters.seeding import solver_signature
from zo_bilevel.problem.solver_identity import solver_name
from zo_bilevel.problem.space import Space
from zo_bilevel.support.errors import InputError, WrongShapeError, unknown_name_message


@final
class BatchedFunction:
    """Call a function that solves many points at once.

    The function gets stacked values, the first axis being the batch, and returns theta (an array,
    tensor or dict of them) with that same first axis. `zb.Batched()` then runs a whole round in
    one call; every other dispatcher makes batches of one.

    Args:
        function: The function. If it takes the keyword `seeds`, it gets one integer a row.
        style: "keyword" or "dict": each parameter stacked, shape `(batch, *shape)`; "flat": one
            float64 matrix `(batch, N)` in the user's units.
        library: "numpy", or "torch" for a function of float64 tensors.
        device: Where tensors are put when they are not tensors yet, for "torch" only.

    Raises:
        InputError: If the function cannot be called, takes `seed` instead of `seeds`, or an
            option is unknown. When a `Problem` is made: as for `Function`.

    Example:
        >>> solver = BatchedFunction(lambda phi: phi["a"][:, None] * np.arange(3.0))
        >>> solver.solve_batch({"a": np.array([1.0, 10.0])})
        array([[ 0.,  1.,  2.],
               [ 0., 10., 20.]])
        >>> solver({"a": 2.0})
        array([0., 2., 4.])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        style: Style = "dict",
        *,
        library: Literal["numpy", "torch"] = "numpy",
        device: str | None = None,
    ) -> None:
        if not callable(function):
            raise InputError(f"function must be callable, got {type(function).__name__}")
        check_style(style)
        if library not in ("numpy", "torch"):
            raise InputError(unknown_name_message("library", str(library), ("numpy", "torch")))
        if device is not None and library != "torch":
            raise InputError(f"device is for library='torch', got {device!r} with {library!r}")
        accepted = _keywords(function)
        if "seed" in accepted and "seeds" not in accepted:
            raise InputError(
                "a batched function must take seeds=, an array of one seed a row, not seed="
            )
        self.function = function
        self.style: Style = style
        self.library = library
        self.device = device
        self.with_seeds = "seeds" in accepted
        self.__signature__ = solver_signature(with_seed=self.with_seeds)
        self.name = solver_name(function)

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401 - the user's own value
        """Solve one point: a batch of one."""
        stacked = {name: _one_row(value) for name, value in phi.items()}
        theta = self.solve_batch(stacked, seeds=[0 if seed is None else seed])
        if isinstance(theta, Mapping):
            return {name: _first_row(part, f" {name!r}") for name, part in theta.items()}
        return _first_row(theta, "")

    def solve_batch(self, phis: Mapping[str, Any], seeds: Sequence[int] | None = None) -> Any:  # noqa: ANN401 - the user's own value
        """Solve many points in one call.

        Args:
            phis: Stacked values by name, the first axis being the batch.
            seeds: One seed a row, for a function that takes them.

        Returns:
            What the function returned; the first axis is the batch.
        """
        seeded = {"seeds": np.asarray(seeds)} if self.with_seeds and seeds is not None else {}
        values = {name: self._array(value) for name, value in phis.items()}
        if self.style == "keyword":
            return self.function(**values, **seeded)
        return self.function(self._flat(values) if self.style == "flat" else values, **seeded)

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit the function, before the first solve.

        Raises:
            InputError: Naming the parameter.
        """
        owner = f"BatchedFunction({self.name})"
        if self.style == "keyword":
            check_keywords(owner, self.function, space, extra=("seeds",))
        if self.style == "flat":
            refuse_choices(owner, space)

    def __repr__(self) -> str:
        return f"BatchedFunction({self.name}, style={self.style!r}, library={self.library!r})"

    def _array(self, value: Any) -> Any:  # noqa: ANN401 - array, tensor or list
        if self.library == "numpy" or isinstance(value, list) or hasattr(value, "detach"):
            return value  # options of a choice come as a list
        torch = importlib.import_module("torch")
        return torch.as_tensor(np.asarray(value), dtype=torch.float64, device=self.device)

    def _flat(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - array or tensor
        parts = [value.reshape(value.shape[0], -1) for value in values.values()]
        if self.library == "torch":
            return importlib.import_module("torch").cat(parts, dim=1)
        return np.concatenate(parts, axis=1, dtype=np.float64)


def _keywords(function: Callable[..., Any]) -> Sequence[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _one_row(value: Any) -> Any:  # noqa: ANN401 - a number, array or option
    array = np.asarray(value)
    return array[None] if array.dtype.kind in "fiub" else [value]


def _first_row(part: Any, name: str) -> Any:  # noqa: ANN401 - array or tensor
    shape = tuple(np.shape(part))
    if not shape or shape[0] != 1:
        raise WrongShapeError(
            f"a batched function must return{name} with the batch as its first axis: shape "
            f"(1, ...) for 1 row, got {shape}"
        )
    return part[0]
