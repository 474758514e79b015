"""Whole rounds in one call of a vectorised inner solver, in chunks that fit memory."""

from __future__ import annotations

import importlib
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np

from zo_bilevel.dispatch.base import Solve, WithCost, failed_outcome, outcome_of
from zo_bilevel.errors import InnerSolverError, InputError
from zo_bilevel.evaluation import Job, Outcome


@final
class Batched:
    """Run a round as one call of the inner solver's `solve_batch`, on the host or on a device.

    `solve_batch(phis)` gets a dict of stacked values, the first axis being the batch (float64
    arrays, or float64 tensors when `device` is given; values that are no numbers come as lists),
    and returns theta with that same first axis. If it takes `seeds`, it gets one seed a row; if
    it takes `seed` instead, rows of different seeds go in separate calls.

    A chunk that runs out of memory is halved and run again, and the size that fits is remembered.
    A chunk that raises is halved too, so that one bad point costs one solve. Both cost calls, not
    solves: each row has one outcome. A row that is not finite is "invalid", alone.

    Results equal those of `Serial` as far as `solve_batch` computes a row alike in a batch of any
    size; matrix products often differ in the last bits. For results that repeat bit for bit on
    other hardware set `max_batch`.

    Args:
        max_batch: Rows a call at most, or `None` for the whole round.
        device: A torch device such as "cuda" for the stacked numbers, or `None` for numpy.

    Raises:
        InputError: If `max_batch` is below 1, or torch does not know the device.

    Example:
        >>> from zo_bilevel.evaluation import Job
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
        whole = isinstance(max_batch, int) and not isinstance(max_batch, bool)
        if max_batch is not None and not (whole and max_batch >= 1):
            raise InputError(f"max_batch must be a whole number >= 1, got {max_batch!r}")
        self.max_batch = max_batch
        self.device = None if device is None else _known_device(device)
        self.fitting_batch: int | None = None

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run the jobs in as few calls as memory allows.

        Args:
            solve: Holds the inner solver.
            jobs: The round.

        Returns:
            An iterator over each job's index and outcome.

        Raises:
            InputError: If the inner solver has no `solve_batch`.
        """
        solve_batch = getattr(solve.inner, "solve_batch", None)
        if not callable(solve_batch):
            raise InputError(
                "Batched needs an inner solver with a method solve_batch(phis), got "
                f"{_name(solve.inner)}; use Joblib(...) or Serial() for one solve a call"
            )
        return self._run(solve_batch, jobs)

    def close(self) -> None:
        """Nothing to let go of; the batch size that fitted memory is forgotten."""
        self.fitting_batch = None

    def __repr__(self) -> str:
        return f"Batched(max_batch={self.max_batch}, device={self.device!r})"

    def _run(
        self, solve_batch: Callable[..., Any], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Outcome]]:
        """Work through a stack of chunks, halving those that fail."""
        seeding = _seeding(solve_batch)
        chunks = list(reversed(_alike(jobs, by_seed=seeding == "seed")))
        while chunks:
            chunk = chunks.pop()
            size = min(len(chunk), self.max_batch or len(chunk), self.fitting_batch or len(chunk))
            if size < len(chunk):
                chunks.append(chunk[size:])
                chunk = chunk[:size]
            started = time.perf_counter()
            try:
                outcomes = self._call(solve_batch, chunk, seeding, started)
            except InnerSolverError:
                raise
            except Exception as error:  # noqa: BLE001 - the user's code may raise anything
                if len(chunk) == 1:
                    yield chunk[0].index, failed_outcome(error, time.perf_counter() - started)
                    continue
                half = len(chunk) // 2
                if is_out_of_memory(error):
                    self.fitting_batch = half
                    _free_memory(self.device)
                chunks += [chunk[half:], chunk[:half]]
            else:
                yield from zip((job.index for job in chunk), outcomes, strict=True)

    def _call(
        self, solve_batch: Callable[..., Any], chunk: Sequence[Job], seeding: str, started: float
    ) -> list[Outcome]:
        phis = {name: self._stack([job.phi[name] for job in chunk]) for name in chunk[0].phi}
        if seeding == "seeds":
            answer = solve_batch(phis, seeds=np.array([job.seed for job in chunk]))
        elif seeding == "seed":
            answer = solve_batch(phis, seed=chunk[0].seed)
        else:
            answer = solve_batch(phis)
        price, answer = (answer.cost, answer.theta) if isinstance(answer, WithCost) else (0, answer)
        rows = _rows(answer, len(chunk))
        seconds = (time.perf_counter() - started) / len(chunk)
        return [outcome_of(WithCost(row, price / len(chunk)), seconds) for row in rows]

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
        >>> is_out_of_memory(RuntimeError("CUDA error: out of memory")), is_out_of_memory(KeyError())
        (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
