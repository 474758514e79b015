"""What a store keeps: one record for each run, one for each solve."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import final

RUNNING = "running"
STOPPING = "stopping"
"""Status of a run that somebody asked to stop, and that has not ended yet."""
DAMAGED = "damaged"
"""Status of a run whose record cannot be believed; nothing else of it is known."""


@final
@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as a store keeps it.

    Args:
        identity: Same problem, space, method, seed and start give the same text.
        problem: Name of the problem.
        version: Version of the problem.
        method: Name of the method, or its label in a comparison.
        seed: Seed of the run, of any size.
        space: From `space_to_text`.
        start: Scaled start, packed.
        conditions: From `conditions_text`: runs may be compared where it is the same.
        settings: Limits of the run, as JSON.
        command: Words of the command line that started it, as JSON; an empty list for Python.
        status: "running", "stopping", "finished", "broke off", "interrupted", "failed",
            "refused" or "disqualified".
        stop_reason: Why it ended, in words.
        found: What it found, from `run_to_text`; empty until it ends.
        point: The final point, packed; empty where there is none.
        kept: How many solves the store held of it when it ended.
        created: Seconds since 1970.
        updated: Likewise, when the record was last written.
        number: Given by the store, from 1; 0 before.
    """

    identity: str = ""
    problem: str = ""
    version: str = ""
    method: str = ""
    seed: int = 0
    space: str = ""
    start: bytes = b""
    conditions: str = ""
    settings: str = "{}"
    command: str = "[]"
    status: str = RUNNING
    stop_reason: str = ""
    found: str = ""
    point: bytes = b""
    kept: int = 0
    created: float = 0.0
    updated: float = 0.0
    number: int = 0


@final
@dataclass(frozen=True, slots=True)
class StoredSolve:
    """A solve as a store keeps it.

    Args:
        run: Number of its run.
        step: Round, from 1.
        place: Place in the round.
        key: Hash of the inner solver, the point, the seed and what is derived from them.
        point: Scaled point, packed.
        seed: Seed of the solve; 0 where the inner solver takes none.
        role: What the method wanted it for.
        charge: What it counts for in a budget, in solves.
        status: How the solve ended.
        seconds: Wall-clock seconds.
        cost: What it cost.
        worker: Which worker ran it.
        error: What went wrong, in words.
        layout: Structure of the inner solution, from `layout_to_json`; empty where there is none.
        theta_digest: From `digest_of`; empty where there is no inner solution.
        source: Seal of the solve of another run that it was taken over from; else empty.
        judged: Status once its loss was known; empty before, and for solves that are no part of
            the run as it ended.
        loss: Outer objective; `None` unless judged ok.
        theta: Inner solution, packed; `None` where there is none, or it was not asked for.
        number: Given by the store, from 1; 0 before.
        seal: Given by the store, which alone computes and checks it: bytes that no other solve of
            it has, in a database a checksum of everything but theta, whose digest is part of it;
            empty before.
    """

    run: int
    step: int
    place: int
    key: bytes
    point: bytes
    seed: int
    role: str
    charge: int
    status: str
    seconds: float
    cost: float
    worker: str
    error: str
    layout: str = ""
    theta_digest: bytes = b""
    source: bytes = b""
    judged: str = ""
    loss: float | None = None
    theta: bytes | None = None
    number: int = 0
    seal: bytes = b""

    def is_at(self, run: int, step: int, place: int, key: bytes) -> bool:
        """Whether this is the solve that an index says lies there.

        Args:
            run: Number of the run.
            step: Round.
            place: Place in the round.
            key: Its key.
        """
        return (self.run, self.step, self.place, self.key) == (run, step, place, key)


def digest_of(data: bytes) -> bytes:
    """What an inner solution is recognised by, 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()
