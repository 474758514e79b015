"""What passes through a queue: jobs and outcomes as JSON and arrays, each with a seal.

A seal is an HMAC under a secret that runs and workers share, so that a row that somebody else put
into the database is neither solved nor believed. Nothing is ever unpickled.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from typing import Any, Final, final

import numpy as np

from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.store.arrays import layout_to_json, outcome_of_solve, packed_theta
from zo_bilevel.support.errors import InputError, StoreError

TOKEN_VARIABLE: Final = "ZO_BILEVEL_TOKEN"
FEWEST_TOKEN_CHARACTERS: Final = 16
PROTOCOL: Final = "zo_bilevel queue 1"
PLAIN: Final = (bool, int, float, str, type(None))
ARRAY_KINDS: Final = "biufcU"


@final
class Seals:
    """Seals under one secret.

    Args:
        token: The secret, at least 16 characters; default the variable ZO_BILEVEL_TOKEN.

    Raises:
        InputError: If there is none, or it is short.
    """

    def __init__(self, token: str | None = None) -> None:
        token = os.environ.get(TOKEN_VARIABLE) if token is None else token
        if token is None or len(token) < FEWEST_TOKEN_CHARACTERS:
            given = "none" if token is None else f"{len(token)}"
            raise InputError(
                f"token must have at least {FEWEST_TOKEN_CHARACTERS} characters, got {given}: run "
                f"and workers share one secret, in the environment variable {TOKEN_VARIABLE}"
            )
        self._key = hashlib.sha256(token.encode()).digest()

    def of(self, *parts: str | bytes) -> bytes:
        """The seal of a message, 32 bytes."""
        seal = hmac.new(self._key, PROTOCOL.encode(), hashlib.sha256)
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            seal.update(b"%d:" % len(data) + data)
        return seal.digest()

    def fits(self, seal: bytes | None, *parts: str | bytes) -> bool:
        """Whether a seal is that of a message."""
        return seal is not None and hmac.compare_digest(bytes(seal), self.of(*parts))


def job_to_json(job: Job) -> str:
    """A job as text.

    Raises:
        InputError: If it holds what cannot be sent: an exact derivative, or an option of a choice
            that is no number, text, array, list or dict of these.
    """
    if job.derivative is not None:
        raise InputError(
            "Queue sends points and no exact derivatives of the inner solver: use a method that "
            "takes differences, such as GradientMethod(FG2UZO())"
        )
    phi = {name: _plain(value, name) for name, value in job.phi.items()}
    warm = [] if job.warm is None else [_plain(job.warm, "warm")]
    return json.dumps([job.index, job.seed, phi, *warm])


def job_from_json(text: str) -> Job:
    """Undo `job_to_json`; `StoreError` if the text is damaged."""
    try:
        index, seed, phi, *warm = json.loads(text)
        values = {str(name): _value(part) for name, part in phi.items()}
        return Job(int(index), values, int(seed), warm=_value(warm[0]) if warm else None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(f"a job in the queue is damaged: {error}") from error


def _plain(value: Any, name: str) -> Any:  # noqa: ANN401 - a value of a parameter, as JSON
    if type(value) in PLAIN:
        return value
    if type(value) in (list, tuple):
        return {type(value).__name__: [_plain(part, name) for part in value]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _plain(part, name) for key, part in value.items()}}
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind in ARRAY_KINDS:
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            data = base64.b64encode(array.tobytes()).decode()
            return {kind: [array.dtype.str, list(array.shape), data]}
        if array.dtype.kind == "O":
            return {"objects": [list(array.shape), [_plain(part, name) for part in array.flat]]}
    raise InputError(
        f"parameter {name!r} must be made of numbers, texts, arrays, lists and dicts to pass "
        f"through a queue, got {type(value).__name__}: let its options be names, and let the inner "
        "solver look up what they stand for"
    )


def _value(plain: Any) -> Any:  # noqa: ANN401 - undoes _plain
    if type(plain) in PLAIN:
        return plain
    ((kind, held),) = plain.items()
    return _KINDS[kind](held)


def _array(held: Any) -> Any:  # noqa: ANN401 - from JSON
    code, shape, data = held
    kind = np.dtype(str(code))
    if kind.kind not in ARRAY_KINDS:
        raise ValueError(f"{code!r} is no type of numbers")
    return np.frombuffer(base64.b64decode(data, validate=True), kind).reshape(shape).copy()


def _objects(held: Any) -> Any:  # noqa: ANN401 - from JSON
    shape, parts = held
    found = np.empty(len(parts), dtype=object)
    for place, part in enumerate(parts):
        found[place] = _value(part)
    return found.reshape(shape)


_KINDS: Final[dict[str, Callable[[Any], Any]]] = {
    "list": lambda held: [_value(part) for part in held],
    "tuple": lambda held: tuple(_value(part) for part in held),
    "dict": lambda held: {str(key): _value(part) for key, part in held.items()},
    "array": _array,
    "scalar": lambda held: _array(held)[()],
    "objects": _objects,
}


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An outcome as it lies in the database."""

    status: str
    layout: str
    seconds: float
    cost: float
    error: str
    worker: str
    theta: bytes | None


def answer_to_row(outcome: Outcome, worker: str) -> tuple[str, bytes]:
    """An outcome as text, and the bytes of its inner solution."""
    layout = "" if outcome.layout is None else layout_to_json(outcome.layout, None)
    facts = [outcome.status, layout, outcome.seconds, outcome.cost, outcome.error, worker]
    return json.dumps([*facts, outcome.theta is not None]), packed_theta(outcome) or b""


def answer_from_row(text: str, theta: bytes) -> Outcome:
    """Undo `answer_to_row`; `StoreError` if it is damaged, or holds what no solve gives."""
    try:
        status, layout, seconds, cost, error, worker, has_theta = json.loads(text)
        facts = str(status), str(layout), float(seconds), float(cost), str(error), str(worker)
    except (ValueError, TypeError) as broken:
        raise StoreError(f"an answer in the queue is damaged: {broken}") from broken
    answer = Answer(*facts, bytes(theta) if has_theta else None)
    return outcome_of_solve(answer)
