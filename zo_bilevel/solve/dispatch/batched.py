"""Whole rounds in one call of a vectorised inner solver, in chunks that fit memory."""

import importlib
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np

from zo_bilevel.solve.dispatch.base import (
    Solve,
    Stream,
    WithBlock,
    WithCost,
    failed_outcome,
    outcome_of,
)
from zo_bilevel.solve.dispatch.serial import Waiting
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.arguments import whole_number
from zo_bilevel.support.arrays import own
from zo_bilevel.support.errors import InnerSolverError, InputError


class _WrongAxisError(InnerSolverError):
    """The user's `solve_batch` breaks its contract: no row's failure, but the end of the run."""


@final
class Batched(WithBlock):
    """Run a round as one call of the inner solver's `solve_batch`, on the host or on a device.

    `solve_batch(phis)` gets a dict of stacked values, the first axis being the batch (float64
    arrays, or float64 tensors when `device` is given; values that are no numbers come as lists),
    and returns theta with that same first axis. If it takes `seeds`, it gets one seed a row; if
    it takes `seed` instead, rows of different seeds go in separate calls.

    A chunk that runs out of memory is halved and run again, and the size that fits is remembered.
    A chunk that raises is halved too, so that one bad point costs one solve. Both cost calls, not
    solves: each row has one outcome. A row that is not finite is "invalid", alone. Solves that are
    to be differentiated run one by one.

    Results equal those of `Serial` as far as `solve_batch` computes a row alike in a batch of any
    size; matrix products often differ in the last bits. For results that repeat bit for bit on
    other hardware set `max_batch`.

    Args:
        max_batch: Rows a call at most, or `None` for the whole round.
        device: A torch device such as "cuda" for the stacked numbers, or `None` for numpy.

    Raises:
        InputError: If `max_batch` is below 1, or torch does not know the device.

    Example:
        >>> from zo_bilevel.solve.evaluation import Job
        >>> class Square:
        ...     def __call__(self, phi):
        ...         return self.solve_batch({"a": phi["a"][None]})[0]
        ...     def solve_batch(self, phis):
        ...         return phis["a"] ** 2
        >>> jobs = [Job(k, {"a": np.full(2, float(k))}, 0) for k in range(3)]
        >>> outcomes = dict(Batched().run(Solve(Square()), jobs))
        >>> outcomes[2].theta
        array([4., 4.])
    """

    def __init__(self, max_batch: int | None = None, device: str | None = None) -> None:
        self.max_batch = None if max_batch is None else whole_number("max_batch", max_batch, 1)
        self.device = None if device is None else _known_device(device)
        self.fitting_batch: int | None = None

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run the jobs in as few calls as memory allows.

        Raises:
            InputError: If the inner solver has no `solve_batch`.
        """
        solve_batch = getattr(solve.inner, "solve_batch", None)
        if not callable(solve_batch):
            raise InputError(
                "Batched needs an inner solver with a method solve_batch(phis), got "
                f"{_name(solve.inner)}; use Joblib(...) or Serial() for one solve a call"
            )
        return self._run(solve, solve_batch, jobs)

    def stream(self, solve: Solve) -> Stream:
        """Run solves as they are asked for: those that wait share one call.

        Raises:
            InputError: If the inner solver has no `solve_batch`.
        """
        self.run(solve, [])  # refuses what cannot work
        return Waiting(lambda jobs: self.run(solve, jobs))

    def close(self) -> None:
        """Nothing to let go of; the batch size that fitted memory is forgotten."""
        self.fitting_batch = None

    def __repr__(self) -> str:
        return f"Batched(max_batch={self.max_batch}, device={self.device!r})"

    def _run(
        self, solve: Solve, solve_batch: Callable[..., Any], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Outcome]]:
        """Work through a stack of groups, halving the chunks that fail."""
        yield from ((job.index, solve(job)) for job in jobs if job.derivative is not None)
        plain = [job for job in jobs if job.derivative is None]
        seeding = _seeding(solve_batch)
        groups = list(reversed(_alike(plain, by_seed=seeding == "seed")))
        while groups:
            group = groups.pop()
            size = min(len(group), self.max_batch or len(group), self.fitting_batch or len(group))
            chunk, rest = group[:size], group[size:]
            outcomes, out_of_memory = self._attempt(solve, chunk, seeding)
            if len(outcomes) == size:
                yield from zip((job.index for job in chunk), outcomes, strict=True)
                groups += [rest] if rest else []
            elif out_of_memory:
                self.fitting_batch = size // 2
                free_memory(self.device)
                groups.append(group)
            else:
                half = size // 2
                groups += [part for part in (rest, chunk[half:], chunk[:half]) if part]

    def _attempt(
        self, solve: Solve, chunk: Sequence[Job], seeding: str
    ) -> tuple[list[Outcome], bool]:
        """One call; gives one outcome if it raised, and whether memory was the reason.

        The exception does not leave: its traceback would keep the chunk's tensors alive.
        """
        started = time.perf_counter()
        try:
            return self._call(solve, chunk, seeding, started), False
        except (_WrongAxisError, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            outcome = failed_outcome(error, time.perf_counter() - started)
            return [outcome], is_out_of_memory(error)

    def _call(
        self, solve: Solve, chunk: Sequence[Job], seeding: str, started: float
    ) -> list[Outcome]:
        solve_batch = solve.inner.solve_batch  # type: ignore[attr-defined]
        phis = {name: self._stack([own(job.phi[name]) for job in chunk]) for name in chunk[0].phi}
        if seeding == "seeds":
            answer = solve_batch(phis, seeds=np.array([job.seed for job in chunk]))
        elif seeding == "seed":
            answer = solve_batch(phis, seed=chunk[0].seed)
        else:
            answer = solve_batch(phis)
        price, answer = (answer.cost, answer.theta) if isinstance(answer, WithCost) else (0, answer)
        rows = _rows(answer, len(chunk))
        seconds = (time.perf_counter() - started) / len(chunk)
        return [
            outcome_of(WithCost(row, price / len(chunk)), seconds, solve.unmeasured) for row in rows
        ]

    def _stack(self, values: list[Any]) -> Any:  # noqa: ANN401 - array, tensor or list
        array = np.stack([np.asarray(value) for value in values])
        if array.dtype.kind not in "fiub":
            return values
        if self.device is None:
            return array
        torch = importlib.import_module("torch")
        return torch.as_tensor(array, dtype=torch.float64, device=self.device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the host or of a device, ran out.

    Example:
        >>> is_out_of_memory(RuntimeError("CUDA error: out of memory"))
        True
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "out of memory" in str(error).lower()


def _known_device(device: str) -> str:
    torch = importlib.import_module("torch")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device must be one that torch can use here, got {device!r}: {reason}"
        ) from error
    return str(device)


def _seeding(solve_batch: Callable[..., Any]) -> str:
    """Which keyword brings the seeds: "seeds", "seed", or none."""
    try:
        parameters = inspect.signature(solve_batch).parameters
    except (TypeError, ValueError):
        return ""
    return next((name for name in ("seeds", "seed") if name in parameters), "")


def _alike(jobs: Sequence[Job], *, by_seed: bool) -> list[Sequence[Job]]:
    """Jobs that may share a call."""
    if not by_seed:
        return [jobs] if jobs else []
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.seed, []).append(job)
    return list(groups.values())


def _rows(answer: Any, count: int) -> list[Any]:  # noqa: ANN401 - the user's own structure
    """Move a stacked inner solution to the host, once, and split it."""
    if isinstance(answer, Mapping):
        parts = {name: _on_host(part, count, f" {name!r}") for name, part in answer.items()}
        return [{name: part[k] for name, part in parts.items()} for k in range(count)]
    host = _on_host(answer, count, "")
    return [host[k] for k in range(count)]


def _on_host(part: Any, count: int, name: str) -> Any:  # noqa: ANN401 - array or tensor
    host = part.detach().cpu() if hasattr(part, "detach") else np.asarray(part)
    shape = tuple(host.shape)
    if not shape or shape[0] != count:
        raise _WrongAxisError(
            f"solve_batch must return{name} with the batch as its first axis: shape ({count}, ...) "
            f"for {count} rows, got {shape}"
        )
    return host


def free_memory(device: str | None) -> None:
    """Give cached device memory back before the next, smaller attempt."""
    if device is not None and device.startswith("cuda"):
        importlib.import_module("torch").cuda.empty_cache()


def _name(inner: object) -> str:
    return getattr(inner, "__name__", type(inner).__name__)
