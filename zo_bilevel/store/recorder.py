"""One run's view of the store: finds what is already solved, writes what is new.

A stored answer stands in for a solve only when the inner solver, the point and the seed are the
same, and what is derived from them too: the directions of a derivative, and the outer objective of
a gradient that was pulled back. A request of a run is answered by the solve that the run itself
stored at that place, or else by its oldest one that is not yet used, so that a resumed run sees the
numbers it saw before, even when the inner solver draws random numbers of its own. A solve of
another run is copied, and says where from, for the same reason. Failures are taken over only from
the run itself. What is damaged is solved again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

from zo_bilevel.problem.problem import Problem
from zo_bilevel.solve.evaluation import Evaluation, Outcome, Point
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.arrays import (
    layout_to_json,
    outcome_of_solve,
    pack_array,
    packed_theta,
)
from zo_bilevel.store.own_solves import OwnSolves
from zo_bilevel.store.records import RUNNING, STOPPING, StoredRun, StoredSolve, digest_of
from zo_bilevel.store.solve_keys import SolveKeys
from zo_bilevel.support.errors import StoreError

PATIENCE_S: Final = 0.2
"""Losses are written along with the next solve, or at once when solves are slower than this."""
LOOK_S: Final = 1.0
"""How often a run looks whether it is asked to stop."""
SPENT: Final = "seconds, answers and limit so far"
"""Among the settings of a run that has ended once: the same call then sees that time is over."""


@final
class Recorder:
    """Reads and writes one run, which it has opened.

    Args:
        store: The open store.
        run: The run's facts.
        problem: The problem.
        solvers: What tells its inner solver and space from others, by the name of an experiment,
            or under "".

    Raises:
        StoreError: If somebody else is working on the run.

    Attributes:
        spent: Seconds of all lives of the run, the answers it had when it last ended, and the limit
            on seconds then.
        on_record: Step and place of each solve that it stored before.
        takes_others: Whether solves of other runs stand in for its own.
    """

    def __init__(
        self, store: AbstractStore, run: StoredRun, problem: Problem, solvers: Mapping[str, str]
    ) -> None:
        self.store = store
        self.replayed = 0
        self.paid_before: list[float] = []
        self.steered: Callable[[Mapping[str, Any]], None] = lambda _: None
        self.takes_others = True
        lives = store.records(identity=run.identity)
        self.spent = _spent(lives[0]) if lives else (0.0, 0, 0.0)
        self.run = store.begin(self._with_spent(run))
        self._key = SolveKeys(problem, solvers).key
        self._own = OwnSolves(store, self.run.number)
        self.on_record = self._own.places
        self._sources: set[bytes] | None = None
        self._keys: dict[int, bytes] = {}
        self._looked_up: set[int] = set()
        self._unjudged: dict[int, StoredSolve] = {}
        self._judged: list[StoredSolve] = []
        self._written = self._looked = time.monotonic()

    @property
    def name(self) -> str:
        """Of the run: the same in all its lives, and no other's."""
        facts = repr((self.run.identity, self.run.number, self.run.created))
        return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def find(self, step: int, place: int, point: Point, seed: int) -> Outcome | None:
        """Look for a stored answer: the outcome, or `None` when it has to be solved.

        Raises:
            KeyboardInterrupt: If somebody asked the run to stop.
        """
        self._stop_if_asked()
        return self._find(step, place, point, seed)

    def arrival_on_record(self, step: int) -> int | None:
        """Place of the solve that arrived at a step when the run was made, of those one by one."""
        return self._own.arrivals.get(step)

    def next_arrival(
        self, step: int, asked: Mapping[int, tuple[Point, int]]
    ) -> tuple[int, Outcome | None] | None:
        """Look for what arrived next, of solves that were asked for one by one.

        That is the solve that arrived then when the run was made; where there is none, whatever is
        known of a point that is new, which then has arrived now.

        Args:
            step: Arrivals so far, this one included.
            asked: Point and seed of each solve that has not arrived, by place.

        Returns:
            Place and outcome, without the outcome when that is damaged and has to be solved again;
            `None` when nothing more is known.

        Raises:
            KeyboardInterrupt: If somebody asked the run to stop.
        """
        self._stop_if_asked()
        stored = self._own.arrivals.get(step)
        if stored is not None and stored in asked:
            return stored, self._find(step, stored, *asked[stored], moves=True)
        for place in [place for place in asked if place not in self._looked_up]:
            self._looked_up.add(place)
            outcome = self._find(step, place, *asked[place], moves=True)
            if outcome is not None:
                return place, outcome
        return None

    def _find(
        self, step: int, place: int, point: Point, seed: int, *, moves: bool = False
    ) -> Outcome | None:
        key = self._keys[place] = self._key(point, seed)
        for solve, is_own in self._candidates(step, place, key):
            try:
                outcome = outcome_of_solve(solve)
            except StoreError:  # it holds what no solve gives
                self._own.damaged += [solve.number] if is_own else []
                continue
            self.replayed += 1
            if is_own and not solve.source:
                self.paid_before.append(outcome.seconds)
            if is_own and moves and (solve.step, solve.place) != (step, place):
                self._own.damaged.append(solve.number)  # it has arrived at another time
                self._write(self._solve(step, place, point, seed, outcome, solve.source))
            elif not is_own:
                self._write(self._solve(step, place, point, seed, outcome, solve.seal))
            elif not solve.judged:  # killed between the solve and its judgement
                self._unjudged[place] = dataclasses.replace(solve, theta=None)
            return outcome
        return None

    def _candidates(self, step: int, place: int, key: bytes) -> Iterable[tuple[StoredSolve, bool]]:
        own = self._own.take(step, place, key)
        if own is not None:
            yield own, True
        for number in self.store.others(self.run.number, key) if self.takes_others else ():
            solve = self.store.read([number]).get(number)
            if solve is not None and solve.key == key and solve.seal not in self._taken():
                self._taken().add(solve.seal)
                yield solve, False

    def _taken(self) -> set[bytes]:
        """Seals of the solves of other runs that this run has taken over."""
        if self._sources is None:
            self._sources = self._own.sources()
        return self._sources

    def add(self, step: int, place: int, point: Point, seed: int, outcome: Outcome) -> None:
        """Write one finished solve that `find` did not have; it is stored when this returns.

        Raises:
            StoreError: If it cannot be written; what was written before stays.
            KeyboardInterrupt: If somebody asked the run to stop.
        """
        self._write(self._solve(step, place, point, seed, outcome))
        self._stop_if_asked()

    def _with_spent(self, run: StoredRun) -> StoredRun:
        settings = {**json.loads(run.settings), SPENT: self.spent}
        return dataclasses.replace(run, settings=json.dumps(settings)) if self.spent[0] else run

    def _stop_if_asked(self) -> None:
        """Heed `zo-bilevel stop`, which ends the run as Ctrl-C does, and `zo-bilevel steer`."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        for run in self.store.records(self.run.number):
            if run.status == STOPPING:
                raise KeyboardInterrupt
            if run.status == RUNNING and run.settings != self.run.settings:
                self.run = dataclasses.replace(
                    self.run, settings=run.settings, conditions=run.conditions
                )
                self.steered(json.loads(run.settings))

    def _solve(
        self, step: int, place: int, point: Point, seed: int, outcome: Outcome, source: bytes = b""
    ) -> StoredSolve:
        theta = packed_theta(outcome)
        shape = None if outcome.derivative is None else outcome.derivative.shape
        return StoredSolve(
            run=self.run.number,
            step=step,
            place=place,
            key=self._keys.get(place) or self._key(point, seed),
            point=pack_array(point.x),
            seed=seed,
            role=point.role,
            charge=point.solves,
            status=outcome.status,
            seconds=outcome.seconds,
            cost=outcome.cost,
            worker=outcome.worker,
            error=outcome.error,
            layout="" if outcome.layout is None else layout_to_json(outcome.layout, shape),
            theta_digest=b"" if theta is None else digest_of(theta),
            source=source,
            theta=theta,
        )

    def _write(self, *new: StoredSolve) -> None:
        """Write solves, and the losses that wait, at the price of one."""
        self._written = time.monotonic()
        numbers = self.store.write(new, judged=self._judged, dropped=self._own.damaged)
        self._judged, self._own.damaged = [], []
        for solve, number in zip(new, numbers, strict=True):
            self._unjudged[solve.place] = dataclasses.replace(solve, number=number, theta=None)

    def judged(self, evaluations: Mapping[int, Evaluation]) -> None:
        """Add the loss and the final status of the round's new solves, for people to read."""
        for place, found in evaluations.items():
            solve = self._unjudged.pop(place, None)
            if solve is not None:
                # one that breaks a constraint has no loss that could be compared
                loss = float(found.loss) if found.is_feasible else None
                self._judged.append(dataclasses.replace(solve, judged=found.status, loss=loss))
            self._keys.pop(place, None)
        if self._judged and time.monotonic() - self._written > PATIENCE_S:
            self._write()

    def end(
        self, status: str, stop_reason: str, found: str, point: bytes, *, is_whole: bool
    ) -> None:
        """Note how the run ended, and let others work on it.

        Args:
            status: As in `StoredRun`.
            stop_reason: Why, in words.
            found: From `run_to_text`.
            point: The point it reports, packed.
            is_whole: Whether it came to its end. Solves of an earlier and longer run that it did
                not ask for are then no longer judged: they are kept, but no part of it.
        """
        if is_whole:
            self._judged += self._own.forgotten()
        if self._judged or self._own.damaged:
            self._write()
        kept = len(self.store.index(self.run.number))
        ending = {
            "kept": kept,
            "status": status,
            "stop_reason": stop_reason,
            "found": found,
            "point": point,
        }
        ended = dataclasses.replace(self.run, **ending)  # type: ignore[arg-type] # by their names
        self.run = self._with_spent(ended)
        self.store.save(self.run)
        self.store.release(self.run.number)


def _spent(run: StoredRun) -> tuple[float, int, float]:
    """Seconds and answers of a run's lives until now, and their limit, as far as on record."""
    try:
        seconds, answers, limit = json.loads(run.settings)[SPENT]
        return float(seconds), int(answers), float(limit)
    except (ValueError, TypeError, KeyError):
        return 0.0, 0, 0.0
