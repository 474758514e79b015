"""What a store can do: a name and eleven verbs, whatever is behind them.

`zo_bilevel.testing.check_store` tells whether an implementation keeps its promises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from zo_bilevel.store.listing import summary_of
from zo_bilevel.store.records import DAMAGED, STOPPING, StoredRun, StoredSolve
from zo_bilevel.support.errors import InputError, StoreError

ROWS_AT_ONCE = 256
MOST_NAMED = 5


class AbstractStore(ABC):
    """A place that remembers runs and their solves.

    What is read is what was written, or nothing: a record that is damaged is never given back.
    Every verb raises `StoreError`, with the name of the store, when its place cannot be used.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What the store is called in messages."""

    @abstractmethod
    def begin(self, run: StoredRun) -> StoredRun:
        """Open a run, or the one of the same identity to go on with, and keep others off it.

        Args:
            run: Its facts; they replace those of the earlier run.

        Returns:
            The run with its number, and when it was created.

        Raises:
            StoreError: If somebody else is working on that run at this moment.
        """

    @abstractmethod
    def release(self, run: int) -> None:
        """Let others work on a run; so does the death of this process.

        Args:
            run: Its number; nothing happens when it is not ours.
        """

    @abstractmethod
    def save(self, run: StoredRun) -> None:
        """Write a run's record anew.

        Args:
            run: With its number.
        """

    @abstractmethod
    def records(self, number: int | None = None, *, identity: str | None = None) -> list[StoredRun]:
        """All runs, the oldest first; of one that is damaged, number and status only.

        Args:
            number: Only the run of this number, if there is one.
            identity: Only the run of this identity, if there is one.
        """

    @abstractmethod
    def change(self, number: int, **facts: str) -> bool:
        """Write texts into a run's record while somebody works on it.

        Args:
            number: Of the run.
            **facts: Fields of `StoredRun`.

        Returns:
            Whether its status was "running"; else nothing was changed.
        """

    @abstractmethod
    def index(self, run: int) -> list[tuple[int, int, int, bytes]]:
        """Number, step, place and key of each solve of a run, in its order; not yet checked.

        Args:
            run: Its number.
        """

    @abstractmethod
    def others(self, run: int, key: bytes) -> list[int]:
        """Numbers of the solves of other runs that were asked for under a key, the oldest first.

        Args:
            run: Number of the run that asks; neither its own solves count nor those that a run
                took over, nor those that failed.
            key: The key.
        """

    @abstractmethod
    def read(self, numbers: Sequence[int], *, with_theta: bool = True) -> dict[int, StoredSolve]:
        """Solves by number; those that are damaged or gone are left out.

        Args:
            numbers: Of any runs, at most `ROWS_AT_ONCE`.
            with_theta: Whether inner solutions are needed; what lacks its own is then damaged.
        """

    @abstractmethod
    def write(
        self,
        new: Sequence[StoredSolve] = (),
        *,
        judged: Sequence[StoredSolve] = (),
        dropped: Sequence[int] = (),
    ) -> list[int]:
        """Write all of it, or nothing; it is safe from the end of this process when this returns.

        Args:
            new: Solves to add, without a number. Theirs, and their `seal`, are the store's to
                give: any bytes that tell this solve from all others that the store ever held.
            judged: Solves as they were written or read, with another `judged` and `loss`.
            dropped: Numbers of solves to forget.

        Returns:
            The numbers of the new solves.
        """

    @abstractmethod
    def stamp(self) -> str:
        """What tells one state of the store from the next."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; what was written stays."""

    def unwaited(self) -> AbstractContextManager[object]:
        """Within this block a place that is away is not waited for: last words of who must go."""
        return nullcontext()

    def stop(self, number: int) -> bool:
        """Ask whoever works on a run to stop: its status becomes "stopping", if it was "running".

        Args:
            number: Of the run.

        Returns:
            Whether it was.
        """
        return self.change(number, status=STOPPING)

    def runs(self) -> list[dict[str, Any]]:
        """All runs for people, the oldest first: what is known of each, by name.

        Returns:
            `id` and the facts of `StoredRun`; `solves`, `failures`, `rounds`, `cost`; `best_loss`,
            the lowest one, and `loss` with its `standard_error`, that of the final point once the
            run has ended. Of a damaged run `id` and `status`.

        Raises:
            StoreError: If a solve of a run that has not ended is damaged.
        """
        return [summary_of(self, run) for run in self.records()]

    def find_run(self, number: int) -> StoredRun:
        """One run.

        Args:
            number: Its number.

        Raises:
            InputError: If there is no such run, with the nearest numbers.
            StoreError: If it is damaged.
        """
        for run in self.records(number):
            self.check_run(run)
            return run
        runs = self.records()
        if not runs:
            raise InputError(f"store {self.name} holds no runs")
        near = sorted((run.number for run in runs), key=lambda known: abs(known - number))
        named = ", ".join(str(known) for known in sorted(near[:MOST_NAMED]))
        raise InputError(
            f"store {self.name} has no run {number}; the nearest: {named} ({len(runs)} in all)"
        )

    def check_run(self, run: StoredRun) -> None:
        """Refuse a run that is damaged.

        Args:
            run: From `records`.

        Raises:
            StoreError: If it is.
        """
        if run.status == DAMAGED:
            raise StoreError(
                f"run {run.number} of store {self.name} is damaged; run what made it again with "
                "the same store, which keeps its solves"
            )

    def solves(self, run: StoredRun) -> Iterator[StoredSolve]:
        """The solves of a run in its order, without inner solutions.

        Args:
            run: From `records`.

        Raises:
            StoreError: If one is damaged, or gone.
        """
        index = self.index(run.number)
        remedy = "run what made it again with the same store, and it is solved again"
        if run.found and len(index) != run.kept:
            raise StoreError(
                f"store {self.name} holds {len(index)} of the {run.kept} solves of run "
                f"{run.number}; {remedy}"
            )
        for first in range(0, len(index), ROWS_AT_ONCE):
            asked = index[first : first + ROWS_AT_ONCE]
            found = self.read([number for number, *_ in asked], with_theta=False)
            for number, step, place, key in asked:
                solve = found.get(number)
                if solve is None or not solve.is_at(run.number, step, place, key):
                    raise StoreError(
                        f"solve {number} of run {run.number} of store {self.name} is damaged; "
                        f"{remedy}"
                    )
                yield solve

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
