"""An inner solver that is a loop of torch steps: a black box, and differentiable both ways.

Forward mode pushes tangents step by step and keeps no graph, so that its memory does not grow
with the number of steps (Shen et al. 2024, arXiv 2406.14095, section 3.1); reverse mode unrolls
the loop, or a part of it, for comparison.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, final

import numpy as np
import torch

from zo_bilevel.adapters.torch_unroll.batched_runs import run_batch
from zo_bilevel.adapters.torch_unroll.checks import check_finite, draws, rehearse
from zo_bilevel.adapters.torch_unroll.forward import push_loop
from zo_bilevel.adapters.torch_unroll.leaves import Leaves, Tree, enter, leave
from zo_bilevel.adapters.torch_unroll.reverse import pull_fixed_point, pull_trajectory
from zo_bilevel.adapters.torch_unroll.run import Phi, Run
from zo_bilevel.problem.parameters import Choice
from zo_bilevel.problem.solver_identity import content_hash
from zo_bilevel.problem.space import Space
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import InputError


@final
class TorchUnroll:
    """`theta_0 = init(phi)`, `theta_t = step(theta_{t-1}, phi, t, batch)`, `theta = theta_T`.

    Called, it is a black box that takes no gradient, so that `FG2U` and `FG2UZO` can be compared
    on one problem. `init` and `step` get the numbers of phi as tensors of `dtype` on `device`
    (integers and options as they are; that a number is an option of a `Choice` is known from the
    space of the `Problem`). Differentiate inside a step with `torch.func.grad`.

    Args:
        init: `init(phi)` or `init(phi, seed=seed)`: the initial state, a pytree of tensors.
        step: `step(theta, phi, t, batch)`, t from 0: the next state, of the same structure,
            shapes and dtypes, in new tensors. Complex tensors have no derivative here.
        num_steps: Steps T, >= 1.
        batches: `batches(t, generator)` gives the batch of step t, moved to `device` by itself;
            its random numbers come from the generator, which is seeded by the solve's seed and t.
            Without it, `batch` is `None`.
        read: `read(theta, phi)`: the part of the last state that is the inner solution (the
            weights without the optimizer's moments, predictions on validation data). Default:
            all of it.
        dtype: Of phi; default torch's default dtype.
        device: Of phi.
        allow_unreached: Names of parameters that only the outer objective looks at. Any other
            parameter that the loop does not depend on is refused: its derivative would be zero.

    Raises:
        InputError: If `init` or `step` cannot be called, `num_steps < 1`, or `allow_unreached`
            is no collection of names.

    Example:
        >>> def init(phi):
        ...     return torch.zeros(2, dtype=torch.float64)
        >>> def step(theta, phi, t, batch):
        ...     return theta - 0.5 * (theta - phi["a"])
        >>> loop = TorchUnroll(init, step, 3, dtype=torch.float64)
        >>> loop({"a": 8.0})
        tensor([7., 7.], dtype=torch.float64)
        >>> loop.jvp({"a": 8.0}, {"a": np.ones(1)}, seed=0)[1]
        tensor([[0.8750, 0.8750]], dtype=torch.float64)
    """

    def __init__(
        self,
        init: Callable[..., Tree],
        step: Callable[[Tree, Phi, int, Any], Tree],
        num_steps: int,
        *,
        batches: Callable[[int, torch.Generator], Any] | None = None,
        read: Callable[[Tree, Phi], Tree] | None = None,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        allow_unreached: Collection[str] = (),
    ) -> None:
        for name, function in (("init", init), ("step", step)):
            if not callable(function):
                raise InputError(f"{name} must be callable, got {function!r}")
        is_whole = isinstance(num_steps, numbers.Integral) and not isinstance(num_steps, bool)
        if not is_whole or num_steps < 1:
            raise InputError(f"num_steps must be a whole number >= 1, got {num_steps!r}")
        if isinstance(allow_unreached, str):
            raise InputError(
                f"allow_unreached must be a list of names, got the string {allow_unreached!r}"
            )
        self.init = init
        self.step = step
        self.num_steps = int(num_steps)
        self.batches = batches
        self.read = read
        self.dtype = torch.get_default_dtype() if dtype is None else dtype
        self.device = device
        self.allow_unreached = frozenset(allow_unreached)
        self.seeds_init = takes_seed(init)
        self.checked: frozenset[str] = frozenset()
        self._is_option: dict[str, bool] = {}
        self._shape_of_theta: Leaves | None = None

    def check(self, space: Space) -> None:
        """Learn from a problem's space which numbers are options, to be given as they are.

        Args:
            space: The space.

        Raises:
            InputError: If a parameter is a `Choice` here and a number in another problem of this
                loop, or the other way round.
        """
        for name, parameter in space.parameters.items():
            is_option = isinstance(parameter, Choice)
            if self._is_option.setdefault(name, is_option) != is_option:
                raise InputError(
                    f"parameter {name!r} must not be a Choice in one problem of a loop and a "
                    f"number in another, got {parameter!r}; make a TorchUnroll for each"
                )

    def tensors(self, phi: Mapping[str, Any]) -> Phi:
        """Phi as `init` and `step` see it: numbers as tensors, integers and options as they are."""
        return {
            name: value if self._is_option.get(name) else as_tensor(value, self.dtype, self.device)
            for name, value in phi.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        # found again when needed: torch's tree specs warn when they are unpickled
        return {**self.__dict__, "_shape_of_theta": None}

    @property
    def name(self) -> str:
        """Steps and a hash of all that the loop is made of, by which a store tells loops apart."""
        parts = (self.init, self.step, self.batches, self.read, str(self.dtype))
        return f"{self!r}#{content_hash(*parts)}"

    def __repr__(self) -> str:
        step = getattr(self.step, "__qualname__", type(self.step).__qualname__)
        return f"TorchUnroll({step}, num_steps={self.num_steps})"

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401
        """Run the loop; no gradient is taken.

        Returns:
            The inner solution: a tensor, or a dict of tensors by their place in the pytree.

        Raises:
            InvalidSolutionError: If it is not finite, naming the step where that began.
            InputError: If `init` or `step` breaks its rule.
        """
        with torch.no_grad():
            run = Run(self, phi, seed, is_plain=True)
            rehearse(run)
            with run.random():
                theta = run.initial(run.phi)
                for t in range(self.num_steps):
                    theta = run.next(theta, run.phi, t, run.batch(t))
                found = run.observed(theta, run.phi)
            check_finite(run, found)
            return leave(found.tree, "read")

    def solve_batch(self, phis: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401
        """Run the loop at many phi at once, for `Batched`.

        Args:
            phis: Per name the rows' values, stacked.
            seed: Of all rows.

        Returns:
            The inner solutions, with the batch as the first axis.
        """
        return run_batch(self, phis, seed)

    def draws(self, phi: Mapping[str, Any]) -> bool:
        """Whether a run draws random numbers: if not, its seed changes nothing.

        `init`, the first and the last step and `read` are looked at.
        """
        return draws(Run(self, phi, 0, is_plain=True))

    def jvp(
        self, phi: Mapping[str, Any], tangents: Mapping[str, Any], *, seed: int | None = None
    ) -> tuple[Any, Any]:
        """Run the loop and push tangents of phi through it.

        Args:
            phi: Named values.
            tangents: Per name an array `(c, *shape)`; names left out stay fixed.
            seed: As for a plain run: the same seed, the same theta.

        Returns:
            The inner solution, and the same structure with a first axis of length c.

        Raises:
            InputError: If the loop does not depend on a parameter, or an operation in it has no
                forward derivative, by name.
        """
        return push_loop(Run(self, phi, seed), tangents)

    def pull_trajectory(
        self,
        phi: Mapping[str, Any],
        cotangent: Callable[[Any], Any],
        *,
        seed: int | None = None,
        last_steps: int | None = None,
        memory: int | str = "all",
    ) -> tuple[Any, dict[str, Any]]:
        """Run the loop and pull a gradient in theta back through its last steps.

        Args:
            phi: Named values.
            cotangent: From the inner solution to the gradient in it, flat.
            seed: As for a plain run.
            last_steps: How many steps; `None` is all of them and `init`.
            memory: "all" keeps every step of the graph; "sqrt", or a number of bytes, keeps few
                states and runs the steps between them once more.

        Returns:
            The inner solution and the gradient by name.
        """
        return pull_trajectory(Run(self, phi, seed), cotangent, last_steps, memory)

    def pull_fixed_point(
        self,
        phi: Mapping[str, Any],
        cotangent: Callable[[Any], Any],
        *,
        seed: int | None = None,
        terms: int | Literal["auto"] = 1,
        tolerance: float = 0.0,
        solver: Literal["neumann", "conjugate_gradient", "gmres"] = "neumann",
    ) -> tuple[Any, dict[str, Any]]:
        """Run the loop and pull a gradient back as if its end were a fixed point of the last step.

        Args:
            phi: Named values.
            cotangent: From the inner solution to the gradient in it, flat.
            seed: As for a plain run.
            terms: Products with the step's derivative at the most, >= 1, or "auto".
            tolerance: Relative residual at which to stop.
            solver: How the linear system is solved.

        Returns:
            The inner solution and the gradient by name.
        """
        return pull_fixed_point(Run(self, phi, seed), cotangent, terms, tolerance, solver)

    def outer(self, function: Callable[[Tree, Phi], Any]) -> Callable[[Any, Phi], Any]:
        """An outer objective that sees theta as the loop does: its pytree, dtypes and device.

        Args:
            function: `f(theta, phi) -> scalar tensor`.

        Returns:
            What to give to `Problem` as `outer`.
        """
        return functools.partial(_outer, self, function)

    def shape_of_theta(self, phi: Mapping[str, Any]) -> Leaves:
        """Structure, shapes and dtypes of the inner solution."""
        if self._shape_of_theta is None:
            with torch.no_grad():
                run = Run(self, phi, 0, is_plain=True)
                with run.random():
                    self._shape_of_theta = run.observed(run.initial(run.phi), run.phi)
        return self._shape_of_theta

    def initial_state(self, phi: Phi, seed: int) -> Tree:
        """What `init` returns."""
        return self.init(phi, seed=seed) if self.seeds_init else self.init(phi)


def _outer(loop: TorchUnroll, function: Callable[[Any, Any], Any], theta: Any, phi: Any) -> Any:  # noqa: ANN401
    tree = enter(theta, loop.shape_of_theta(phi))
    return function(tree, loop.tensors(phi))


def as_tensor(value: Any, dtype: torch.dtype, device: str) -> Any:  # noqa: ANN401 - any option
    """A floating-point value as a tensor; an integer or option as it is."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        if array.dtype.kind != "f":
            return value
        value = torch.from_numpy(np.array(array))
    return value.to(device=device, dtype=dtype)
