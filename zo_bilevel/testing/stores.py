"""What every store must keep, for this package's own and for users'."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from zo_bilevel.methods.baselines.random_search import RandomSearch
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.loop import minimize
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.store.records import StoredRun, StoredSolve, digest_of
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import StoreError
from zo_bilevel.testing.conformance import require, sample_problem

LARGE_BYTES = 3 << 19
UNUSUAL_TEXT = "line\nbreak \x00 \udc80 µ"
LARGE_SEED = 2**70 + 1


def check_store(open_store: Callable[[], AbstractStore]) -> None:
    """Check that a store keeps the promises of `AbstractStore`.

    Args:
        open_store: Opens the same empty place each time.

    Raises:
        AssertionError: With the rule that is broken.

    Example:
        >>> from zo_bilevel.store.memory import MemoryStore
        >>> store = MemoryStore()
        >>> check_store(lambda: store)
    """
    _check_runs(open_store)
    _check_solves(open_store)
    _check_changes(open_store)
    _check_resuming(open_store)


def _run(identity: str, **facts: Any) -> StoredRun:  # noqa: ANN401 - fields of a run
    return StoredRun(identity=identity, problem="p", version="1", method="m", **facts)


def _solve(run: int, step: int, place: int, **facts: Any) -> StoredSolve:  # noqa: ANN401 - fields
    given = {"key": b"key", "point": b"\0point", "seed": 7, "role": "trial", "charge": 3, **facts}
    theta = given.get("theta")
    given["theta_digest"] = b"" if theta is None else digest_of(theta)
    outcome = {"status": "ok", "seconds": 0.1, "cost": 0.3, "worker": "w", "error": "", **given}
    return StoredSolve(run=run, step=step, place=place, **outcome)


def _facts(record: StoredRun | StoredSolve) -> dict[str, Any]:
    """What must come back as it was written."""
    given = {"updated", "created", "number", "seal"}
    facts = {n: getattr(record, n) for n in type(record).__slots__ if n not in given}
    texts = {n: _escaped(v) for n, v in facts.items() if type(v) is str}
    return {n: repr(value) for n, value in {**facts, **texts}.items()}


def _escaped(text: str) -> str:
    """A text as it may come back: what not every database can hold is an escape."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _check_runs(open_store: Callable[[], AbstractStore]) -> None:
    given = _run("first", seed=LARGE_SEED, stop_reason=UNUSUAL_TEXT, point=b"\0\1", start=b"\0")
    with open_store() as store:
        first = store.begin(given)
        require(first.number >= 1, f"a run must have a number >= 1, got {first.number}")
        _check_held(store, given)
        ended = dataclasses.replace(first, status="finished", found="{}")
        store.save(ended)
        store.release(first.number)
    with open_store() as store:
        (found,) = (run for run in store.records() if run.number == first.number)
        require(_facts(found) == _facts(ended), f"a run must come back as saved, got {found}")
        again = store.begin(dataclasses.replace(given, settings='{"max_solves": 9}'))
        require(again.number == first.number, "one identity must be one run")
        require(again.created == found.created, "a run keeps the time when it was created")
        (kept,) = (run for run in store.records() if run.number == first.number)
        require(kept.found == "" and "9" in kept.settings, "a run that is begun again starts anew")
        require(store.records(first.number) == [kept], "one run can be asked for by its number")
        require(store.records(identity=first.identity) == [kept], "and so it can by its identity")
        require(store.records(first.number + 99) == [], "a run that is not there is none")
        require(store.stop(first.number), "a run that goes on can be asked to stop")
        (asked,) = store.records(first.number)
        require(asked.status == "stopping", f"such a run is stopping, got {asked.status}")
        require(not store.stop(first.number), "only a run that goes on can be asked to stop")
        other = store.begin(_run("second"))
        require(other.number != first.number, "another identity must be another run")
        for run in (first, other):
            store.release(run.number)


def _check_held(store: AbstractStore, run: StoredRun) -> None:
    try:
        store.begin(run)
    except StoreError:
        return
    raise AssertionError("a run that is being worked on must be refused to others")


def _check_solves(open_store: Callable[[], AbstractStore]) -> None:
    large = np.random.default_rng(0).bytes(LARGE_BYTES)
    with open_store() as store:
        run, other = (store.begin(_run(identity)).number for identity in ("first", "second"))
        given = [
            _solve(run, 2, 0, theta=b"\0theta", cost=math.nan, seconds=math.inf),
            _solve(run, 1, 1, status="failed", error=UNUSUAL_TEXT),
            _solve(run, 1, 0, theta=large, layout="[]", source=b"12345678"),
            _solve(run, 3, 0, key=b"another"),
        ]
        numbers = [*store.write(given[:1]), *store.write(given[1:])]
        own = store.write([_solve(other, 1, 0)])
        require(len({*numbers, *own}) == 5, f"solves must have different numbers, got {numbers}")
    with open_store() as store:
        found = store.read([*numbers, max(*numbers, *own) + 1])
        require(sorted(found) == sorted(numbers), "reading gives what is there and no more")
        for number, solve in zip(numbers, given, strict=True):
            require(_facts(found[number]) == _facts(solve), f"solve {number} is not as written")
            require(bool(found[number].seal), f"solve {number} has no seal")
        order = [entry[0] for entry in store.index(run)]
        require(order == [numbers[2], numbers[1], numbers[0], numbers[3]], "index must be in order")
        require(store.index(run)[3][1:] == (3, 0, b"another"), "index has step, place and key")
        require(store.others(other, b"key") == numbers[:1], "others: ok, and not taken over")
        require(store.others(run, b"key") == own, "a run's own solves are not those of others")
        require([found[number].charge for number in order] == [3] * 4, "a solve keeps its charge")
        store.release(run)
        store.release(other)


def _check_changes(open_store: Callable[[], AbstractStore]) -> None:
    with open_store() as store:
        run = store.begin(_run("changes")).number
        first, second = store.write([_solve(run, 1, 0), _solve(run, 1, 1)])
        before = store.stamp()
        require(store.stamp() == before, "looking must not change the stamp")
        known = store.read([first])[first]
        store.write(judged=[dataclasses.replace(known, judged="ok", loss=0.5)], dropped=[second])
        require(store.stamp() != before, "writing must change the stamp")
        store.release(run)
    with open_store() as store:
        found = store.read([first, second])
        require(list(found) == [first], "what is dropped must be gone, and nothing else")
        require(
            (found[first].judged, found[first].loss, found[first].key) == ("ok", 0.5, b"key"),
            "a judged solve has its status and loss, and all that it had before",
        )


class _Counted:
    """A problem's inner solver that counts its calls, and is interrupted at one of them."""

    def __init__(self, problem: Problem, stop_at: int = 0) -> None:
        self.inner, self.stop_at, self.calls = problem.inner, stop_at, 0

    def __call__(self, phi: dict[str, Any]) -> FloatArray:
        """Solve, unless this call is the one to be interrupted."""
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return np.asarray(self.inner(phi))


def _check_resuming(open_store: Callable[[], AbstractStore]) -> None:
    problem = sample_problem()
    whole = minimize(problem, RandomSearch(), max_solves=12)
    calls = []
    for stop_at in (7, 0, 0):
        inner = _Counted(problem, stop_at)
        with open_store() as store:
            counted = dataclasses.replace(problem, inner=inner)
            result = minimize(counted, RandomSearch(), max_solves=12, store=store)
        calls.append(inner.calls)
    require(calls == [7, 6, 0], f"stored solves must not be solved again, got calls {calls}")
    losses = [[record.loss for record in run.history] for run in (whole, result)]
    require(losses[0] == losses[1], "a resumed run must be the run that was never interrupted")
    require(np.array_equal(whole.x, result.x), "a resumed run must end at the same point")
