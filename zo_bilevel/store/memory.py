"""A store that lives as long as this process: for tests, and for runs that share their solves."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Sequence
from threading import RLock
from typing import final

from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.records import RUNNING, StoredRun, StoredSolve
from zo_bilevel.support.errors import StoreError


@final
class MemoryStore(AbstractStore):
    """Remembers runs and solves in this process; any thread may use it.

    Example:
        >>> from zo_bilevel import Problem, RandomSearch, Real, Space, minimize
        >>> problem, store = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"]), MemoryStore()
        >>> result = minimize(problem, RandomSearch(), max_solves=9, store=store)
        >>> len(list(store.solves(store.find_run(1))))
        9
    """

    name = "in memory"

    def __init__(self) -> None:
        self._runs: dict[int, StoredRun] = {}
        self._solves: dict[int, StoredSolve] = {}
        self._by_run: defaultdict[int, list[int]] = defaultdict(list)
        self._by_key: defaultdict[bytes, list[int]] = defaultdict(list)
        self._held: set[int] = set()
        self._last = 0
        self._changes = 0
        self._lock = RLock()

    def begin(self, run: StoredRun) -> StoredRun:
        """Open a run, or the one of the same identity to go on with.

        Raises:
            StoreError: If another thread is working on that run.
        """
        with self._lock:
            known = [n for n, other in self._runs.items() if other.identity == run.identity]
            number = known[0] if known else len(self._runs) + 1
            if number in self._held:
                raise StoreError(f"run {number} of the store in memory is being worked on")
            self._held.add(number)
            created = self._runs[number].created if known else time.time()
            opened = dataclasses.replace(run, number=number, created=created)
            self.save(opened)
        return opened

    def release(self, run: int) -> None:
        """Let others work on a run."""
        self._held.discard(run)

    def save(self, run: StoredRun) -> None:
        """Write a run's record anew."""
        with self._lock:
            self._changes += 1
            self._runs[run.number] = dataclasses.replace(run, updated=time.time())

    def records(self, number: int | None = None, *, identity: str | None = None) -> list[StoredRun]:
        """All runs, the oldest first, or the one of a number or an identity."""
        with self._lock:
            runs = [run for run in self._runs.values() if number in (None, run.number)]
            return [run for run in runs if identity in (None, run.identity)]

    def change(self, number: int, **facts: str) -> bool:
        """Write texts into a run's record while somebody works on it."""
        with self._lock:
            run = self._runs.get(number)
            if run is None or run.status != RUNNING:
                return False
            self.save(dataclasses.replace(run, **facts))  # type: ignore[arg-type] # by name
        return True

    def index(self, run: int) -> list[tuple[int, int, int, bytes]]:
        """Number, step, place and key of each solve of a run, in its order."""
        with self._lock:
            solves = [self._solves[number] for number in self._by_run[run]]
        found = [(solve.number, solve.step, solve.place, solve.key) for solve in solves]
        return sorted(found, key=lambda entry: (entry[1], entry[2], entry[0]))

    def others(self, run: int, key: bytes) -> list[int]:
        """Numbers of the solves of other runs that were asked for under a key."""
        with self._lock:
            solves = [self._solves[number] for number in self._by_key[key]]
        return [s.number for s in solves if s.run != run and s.status == "ok" and not s.source]

    def read(self, numbers: Sequence[int], *, with_theta: bool = True) -> dict[int, StoredSolve]:
        """Solves by number."""
        del with_theta  # it costs nothing
        with self._lock:
            return {n: self._solves[n] for n in numbers if n in self._solves}

    def write(
        self,
        new: Sequence[StoredSolve] = (),
        *,
        judged: Sequence[StoredSolve] = (),
        dropped: Sequence[int] = (),
    ) -> list[int]:
        """Write all of it."""
        with self._lock:
            self._changes += 1
            for solve in judged:
                former = self._solves[solve.number]
                changes = {"judged": solve.judged, "loss": solve.loss}
                self._solves[solve.number] = dataclasses.replace(former, **changes)  # type: ignore[arg-type] # two fields of their kinds
            for number in dropped:
                solve = self._solves.pop(number)
                self._by_run[solve.run].remove(number)
                self._by_key[solve.key].remove(number)
            return [self._add(solve) for solve in new]

    def _add(self, solve: StoredSolve) -> int:
        self._last += 1
        seal = b"%8d" % self._last
        self._solves[self._last] = dataclasses.replace(solve, number=self._last, seal=seal)
        self._by_run[solve.run].append(self._last)
        self._by_key[solve.key].append(self._last)
        return self._last

    def stamp(self) -> str:
        """What tells one state of the store from the next."""
        return str(self._changes)

    def close(self) -> None:
        """Nothing is let go of: the store lives on with its object."""
