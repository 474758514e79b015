"""User functions as outer objectives: torch functions by autograd, others by value only."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np

from zo_bilevel.problem.objectives.base import OuterContext, OuterObjective, Pair
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, described

NUMERICAL_ERRORS = (ArithmeticError, np.linalg.LinAlgError)
"""What a function that is right may raise at some points."""
RELATIVE_STEP = 1e-5
"""Step of differences of a gradient, in units of the largest value."""
STEP_REACHES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0)
"""How far theta is moved to see a loss in steps, in units of the largest value."""


@contextmanager
def gradients_on() -> Iterator[None]:
    """Autograd as it is by default, whatever mode the caller's program is in."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        yield


@final
class TorchObjective(OuterObjective):
    """A scalar torch function `f(theta, phi)`, differentiated by autograd.

    Args:
        function: Called with float64 tensors in the user's structure: theta as the inner
            solver returned it, phi by name.
    """

    is_vector = True

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def _scalar(self, theta: Any, x: Any, at: FloatArray, context: OuterContext) -> Any:  # noqa: ANN401
        # a copy: the function may work in place
        packed = context.layout.pack(theta.clone())
        value = self.function(packed, context.space.decode_torch(x, at))
        return value.reshape(()).to(theta.dtype)

    def value(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> float:
        """The function's value."""
        import torch

        with torch.no_grad():
            tensors = torch.tensor(theta), torch.tensor(x)
            return float(self._scalar(*tensors, x, context))

    def gradient(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> Pair:
        """First derivatives by reverse mode."""
        return self.value_and_gradient(theta, x, context)[1]

    def value_and_gradient(
        self, theta: FloatArray, x: FloatArray, context: OuterContext
    ) -> tuple[float, Pair]:
        """The value, and its first derivatives by reverse mode."""
        import torch

        with gradients_on():
            inputs = [torch.tensor(part, requires_grad=True) for part in (theta, x)]
            value = self._scalar(inputs[0], inputs[1], x, context)
            grads = torch.autograd.grad(value, inputs, allow_unused=True)
        out = [
            np.zeros(len(t)) if g is None else g.numpy() for g, t in zip(grads, inputs, strict=True)
        ]
        return float(value.detach()), (out[0], out[1])

    def hessian_product(self, at: Pair, tangents: Pair, context: OuterContext) -> Pair:
        """Reverse over reverse mode; the Hessian is symmetric.

        Central differences of the gradient where an operation has no second derivative.
        """
        try:
            with gradients_on():
                return self._differentiated_twice(at, tangents, context)
        except (RuntimeError, NotImplementedError):
            return self._differenced(at, tangents, context)

    def _differenced(self, at: Pair, tangents: Pair, context: OuterContext) -> Pair:
        found = np.zeros_like(tangents[0]), np.zeros_like(tangents[1])
        largest = max(float(np.max(np.abs(at[0]), initial=0.0)), 1.0)
        for column, along in enumerate(zip(*(part.T for part in tangents), strict=True)):
            length = max(float(np.linalg.norm(part)) for part in along)
            if length == 0.0:
                continue
            step = RELATIVE_STEP * largest / length
            ends = [
                self.gradient(at[0] + side * along[0], at[1] + side * along[1], context)
                for side in (step, -step)
            ]
            for part, high, low in zip(found, *ends, strict=True):
                part[:, column] = (high - low) / (2 * step)
        return found

    def _differentiated_twice(self, at: Pair, tangents: Pair, context: OuterContext) -> Pair:
        import torch

        inputs = [torch.tensor(part, requires_grad=True) for part in at]
        value = self._scalar(inputs[0], inputs[1], at[1], context)
        slopes = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True)
        columns = [torch.from_numpy(part.T.copy()) for part in tangents]
        used = [i for i, slope in enumerate(slopes) if slope is not None and slope.requires_grad]
        if not used:  # a linear function
            return np.zeros_like(tangents[0]), np.zeros_like(tangents[1])
        products = _pull_back([slopes[i] for i in used], inputs, [columns[i] for i in used])
        count = tangents[0].shape[1]
        theta_part, x_part = (
            np.zeros((count, t.numel())) if p is None else p.numpy()
            for p, t in zip(products, inputs, strict=True)
        )
        return theta_part.T, x_part.T


def _pull_back(slopes: list[Any], inputs: list[Any], columns: list[Any]) -> tuple[Any, ...]:
    """Derivatives of `slopes . column` in the inputs, for each of a batch of columns."""
    import torch

    def pulled(columns: Sequence[Any], *, is_batch: bool) -> tuple[Any, ...]:
        return torch.autograd.grad(
            slopes,
            inputs,
            columns,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=is_batch,
        )

    if len(columns[0]) > 1:  # no machinery for one alone
        try:
            return pulled(columns, is_batch=True)
        except RuntimeError:  # some operations cannot, group_norm for one
            pass
    rows = [pulled(row, is_batch=False) for row in zip(*columns, strict=True)]
    return tuple(
        None if parts[0] is None else torch.stack(parts) for parts in zip(*rows, strict=True)
    )


@final
class PythonObjective(OuterObjective):
    """Any Python function `f(theta, phi)` that returns a number; the problem is scalar.

    Args:
        function: Called with theta as the inner solver returned it, phi by name.
        takes_tensors: Call it with float64 tensors, not with arrays.
        is_in_steps: It is constant between jumps.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        *,
        takes_tensors: bool = False,
        is_in_steps: bool = False,
    ) -> None:
        self.function, self.takes_tensors = function, takes_tensors
        self.is_in_steps = is_in_steps

    def value(self, theta: FloatArray, x: FloatArray, context: OuterContext) -> float:
        """The function's value."""
        if self.takes_tensors:
            import torch

            with torch.no_grad():
                packed = context.layout.pack(torch.tensor(theta))
                named = context.space.decode_torch(torch.tensor(x), x)
                return float(_one_number(self.function(packed, named)))
        mine = context.layout.pack(theta.copy())  # the function may work in place
        return float(_one_number(self.function(mine, context.space.decode(x))))


def _one_number(value: Any) -> Any:  # noqa: ANN401 - what a user's function returned
    """The value as it is, if it is one real number: a text reads like one, a vector has many."""
    if isinstance(value, str | bytes) or value is None or np.shape(value) not in ((), (1,), (1, 1)):
        shape = f" of shape {tuple(np.shape(value))}" if np.ndim(value) else f" {value!r}"
        kind = type(value).__name__
        raise InputError(f"the outer objective must return one number, got a {kind}{shape}")
    return value


def resolve_callable(
    function: Callable[[Any, Any], Any], theta: FloatArray, x: FloatArray, context: OuterContext
) -> TorchObjective | PythonObjective:
    """Find out whether a user's function is a torch function or a plain one.

    Returns:
        A `TorchObjective` when autograd reaches theta through it, and finds a slope where the
        value changes; else a `PythonObjective`, of arrays where it works on them.

    Raises:
        InputError: If the function fails on tensors and on arrays, or gives another value for
            the same inner solution each time.
    """
    import torch

    objective = TorchObjective(function)
    try:
        with warnings.catch_warnings(), gradients_on():
            warnings.simplefilter("ignore")
            tensor = torch.tensor(theta, requires_grad=True)
            value = function(
                context.layout.pack(tensor.clone()), context.space.decode_torch(torch.tensor(x), x)
            )
        is_torch = isinstance(_one_number(value), torch.Tensor) and value.requires_grad
        if is_torch:
            objective.gradient(theta, x, context)
    except Exception as error:  # noqa: BLE001 - a plain function may fail on tensors in any way
        return _plain(function, theta, x, context, error)
    if not is_torch:
        return _plain(function, theta, x, context)
    _check_repeats(objective, theta, x, context)
    if _is_in_steps(objective, theta, x, context):
        return PythonObjective(function, takes_tensors=True, is_in_steps=True)
    return objective


def _is_in_steps(
    objective: TorchObjective, theta: FloatArray, x: FloatArray, context: OuterContext
) -> bool:
    """Whether the value changes with theta while the slope is 0 everywhere: rounding, signs."""
    size = float(np.max(np.abs(theta), initial=0.0)) or 1.0
    rng, values = np.random.default_rng(0), set()
    try:
        for reach in (0.0, *STEP_REACHES):
            moved = theta + reach * size * rng.uniform(-1.0, 1.0, theta.size)
            value, (slope, _) = objective.value_and_gradient(moved, x, context)
            if slope.any():
                return False
            values.add(value if math.isfinite(value) else math.inf)
    except Exception:  # noqa: BLE001 - no inner solution needs to look like this
        return False
    return len(values - {math.inf}) > 1


def _check_repeats(
    objective: TorchObjective, theta: FloatArray, x: FloatArray, context: OuterContext
) -> None:
    first, second = (objective.value(theta, x, context) for _ in range(2))
    if first != second and not (math.isnan(first) and math.isnan(second)):
        raise InputError(
            "the outer objective must give one value for one inner solution, got "
            f"{first:g} and {second:g}: put a network with dropout in eval mode, or draw its "
            "random numbers from a seeded generator"
        )


def _plain(
    function: Callable[[Any, Any], Any],
    theta: FloatArray,
    x: FloatArray,
    context: OuterContext,
    on_tensors: Exception | None = None,
) -> PythonObjective:
    """The function for arrays, unless it fails on them: for tensors, or it fails on both."""
    objective = PythonObjective(function)
    try:
        objective.value(theta, x, context)
    except NUMERICAL_ERRORS:
        raise  # of these numbers, not of the function
    except Exception as error:  # noqa: BLE001 - it is shown beside the first
        if on_tensors is None:
            return PythonObjective(function, takes_tensors=True)
        raise InputError(
            f"the outer objective raised {described(on_tensors)} with tensors, and "
            f"{described(error)} with arrays"
        ) from on_tensors
    return objective
