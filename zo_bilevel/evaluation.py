"""What one solve is asked for and what comes back: points, jobs, outcomes, evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.errors import InputError

if TYPE_CHECKING:
    from zo_bilevel.derivatives import Derivative, DerivativeOrder

FloatArray: TypeAlias = NDArray[np.float64]
Status: TypeAlias = Literal[
    "ok", "failed", "timed_out", "crashed", "invalid", "wrong_shape", "rejected"
]
"""`failed`: raised; `timed_out`: killed at its limit; `crashed`: its process died;
`invalid`: values that are not finite; `wrong_shape`: another length or shape than expected or than
before; `rejected`: refused by the user's own rule."""


@final
@dataclass(frozen=True, slots=True)
class ThetaLayout:
    """How a flat inner solution maps to what the inner solver returned.

    Args:
        names: Keys of a dict in order, or `()` for a bare number, array or tensor.
        shapes: Shape of each part.
        dtype: Coarsest floating type seen ("float64", "float32", ...): it bounds the accuracy
            of differences, and so the automatic radius.
        is_torch: Whether the solver returned torch tensors.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str = "float64"
    is_torch: bool = False

    def pack(self, theta: Any) -> Any:  # noqa: ANN401 - numpy or torch, the user's structure
        """Rebuild the user's structure from the flat vector.

        Args:
            theta: Shape `(m,)`, numpy or torch.

        Returns:
            A float for one bare number, an array, or a dict of arrays (tensors stay tensors).
        """
        parts, start = [], 0
        for shape in self.shapes:
            count = int(np.prod(shape))
            parts.append(theta[start : start + count].reshape(shape))
            start += count
        if self.names:
            return dict(zip(self.names, parts, strict=True))
        bare = parts[0]
        return float(bare) if not self.shapes[0] and isinstance(bare, np.ndarray) else bare

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return int(sum(np.prod(shape) for shape in self.shapes))

    def describe(self) -> str:
        """The shapes in words, for messages."""
        if not self.names:
            return f"shape {self.shapes[0]}"
        pairs = zip(self.names, self.shapes, strict=True)
        return "shapes {" + ", ".join(f"{name}: {shape}" for name, shape in pairs) + "}"


def flatten_theta(theta: Any) -> tuple[FloatArray, ThetaLayout]:  # noqa: ANN401 - user's value
    """Flatten an inner solution to one float64 vector on the host.

    Args:
        theta: A number, array, tensor, or dict of them.

    Returns:
        The flat vector of shape `(m,)` and the layout that undoes it.

    Raises:
        TypeError: If a part is no number or array of real numbers, or there is no part at all.

    Example:
        >>> flat, layout = flatten_theta({"u": np.zeros((2, 3)), "flux": 1.0})
        >>> flat.shape, layout.shapes
        ((7,), ((2, 3), ()))
    """
    if type(theta) is np.ndarray and theta.dtype == np.float64 and theta.size:
        return np.ascontiguousarray(theta.ravel()), ThetaLayout((), (theta.shape,))
    if isinstance(theta, Mapping):
        if not theta:
            raise TypeError("the inner solution is an empty dict")
        names = tuple(str(name) for name in theta)
        parts = [_to_numpy(part) for part in theta.values()]
        is_torch = any(hasattr(part, "detach") for part in theta.values())
    else:
        names, parts, is_torch = (), [_to_numpy(theta)], hasattr(theta, "detach")
    shapes = tuple(part.shape for part in parts)
    floats = [part.dtype for part in parts if part.dtype.kind == "f"]
    coarsest = max(floats, key=lambda d: float(np.finfo(d).eps)) if floats else np.dtype("f8")
    flat = np.concatenate([part.ravel() for part in parts]) if names else parts[0].ravel()
    if flat.size == 0:
        raise TypeError("the inner solution is empty")
    layout = ThetaLayout(names, shapes, str(coarsest), is_torch)
    return np.ascontiguousarray(flat, dtype=np.float64), layout


def _to_numpy(part: Any) -> NDArray[Any]:  # noqa: ANN401 - the user's value
    if hasattr(part, "detach"):
        part = part.detach().cpu()
        if str(part.dtype) == "torch.bfloat16":
            part = part.float()
        part = part.numpy()
    array = np.asarray(part)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            "the inner solution must be a number, array, tensor, or dict of them, "
            f"got {type(part).__name__} of dtype {array.dtype}"
        )
    return array


@final
@dataclass(frozen=True, slots=True)
class Point:
    """One solve that a method asks for.

    Args:
        x: Flat scaled vector, shape `(N,)`, within the bounds.
        stream: Names the random numbers of the solve: points of one stream share a seed
            (common random numbers), whatever the order of arrival.
        role: What the solve is for ("start", "sketch", "trial", "restart"), for the history.
        derivative: Exact derivatives wanted beside theta, of an inner solver that has them.
    """

    x: FloatArray
    stream: tuple[int, ...] = (0,)
    role: str = "trial"
    derivative: DerivativeOrder | None = None

    def __post_init__(self) -> None:
        x = np.array(self.x, dtype=np.float64)  # a method may go on with its own array
        x.flags.writeable = False
        object.__setattr__(self, "x", x)

    @property
    def solves(self) -> int:
        """What the point counts for in a budget: one, and one for each derivative."""
        return 1 if self.derivative is None else 1 + self.derivative.solves


JUDGE_STREAM, CONFIRM_STREAM = 1 << 18, 1 << 19
"""First numbers of the streams whose solves judge final points; no method may ask for them."""


def check_asked(points: Sequence[Point], size: int) -> None:
    """Refuse points that a method must not ask for.

    Args:
        points: A round.
        size: Number N of coordinates.

    Raises:
        InputError: If a point has another shape, or its stream is kept for judging.
    """
    for point in points:
        if point.x.shape != (size,):
            raise InputError(
                f"a method must ask for points of shape ({size},), got {point.x.shape}"
            )
        if point.stream[:1] in ((JUDGE_STREAM,), (CONFIRM_STREAM,)):
            raise InputError(
                f"a method must not use the streams that judge final points, got {point.stream}"
            )


def solve_seed(seed: int, stream: tuple[int, ...]) -> int:
    """Seed of a solve: depends on the run's seed and the point's stream, on nothing else.

    Args:
        seed: Seed of the run, >= 0.
        stream: The point's stream.

    Returns:
        An integer in [0, 2**32).

    Example:
        >>> solve_seed(0, (3,)) == solve_seed(0, (3,)) != solve_seed(0, (4,))
        True
    """
    return int(np.random.SeedSequence(seed, spawn_key=stream).generate_state(1)[0])


@final
@dataclass(frozen=True, slots=True)
class Job:
    """One solve as a dispatcher sees it: named values, a seed, its place in the round."""

    index: int
    phi: dict[str, Any]
    seed: int
    derivative: Derivative | None = None


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What a dispatcher gives back for one job; plain data that crosses process borders.

    Args:
        status: How the solve ended.
        theta: Flat inner solution, shape `(m,)`, or `None` unless `status` is "ok".
        layout: Structure of the inner solution, or `None` likewise.
        seconds: Wall-clock seconds of the solve, all attempts.
        cost: What the solve cost, in the user's unit of money.
        error: What went wrong, in words.
        worker: Which worker ran it, for the record only.
        derivative: What the job's derivative computed, or `None` when it asked for none.
    """

    status: Status
    theta: FloatArray | None = None
    layout: ThetaLayout | None = None
    seconds: float = 0.0
    cost: float = 0.0
    error: str = ""
    worker: str = ""
    derivative: FloatArray | None = None


@final
@dataclass(frozen=True, slots=True)
class Evaluation:
    """One finished solve: the point, how it ended, the inner solution and its loss.

    Args:
        point: What was asked.
        status: "ok", "failed", "timed_out", "crashed", "invalid", "wrong_shape" or "rejected".
        theta: Flat inner solution, shape `(m,)`, or `None` unless ok.
        loss: Outer objective, or infinity unless ok.
        seconds: Wall-clock seconds of the solve.
        cost: What it cost.
        error: What went wrong, in words.
        layout: Structure of the inner solution, or `None` unless ok.
        derivative: What the point's derivative computed, or `None` when it asked for none.
    """

    point: Point
    status: Status
    theta: FloatArray | None
    loss: float
    seconds: float = 0.0
    cost: float = 0.0
    error: str = ""
    layout: ThetaLayout | None = None
    derivative: FloatArray | None = None

    @property
    def ok(self) -> bool:
        """Whether the solve gave a usable inner solution and a finite loss."""
        return self.status == "ok"

    @property
    def is_invalid(self) -> bool:
        """Whether the solver answered, but with nothing usable, whatever the reason."""
        return self.status in ("invalid", "wrong_shape", "rejected")
