"""Asks an OpenAI-compatible endpoint: limits in rate, number and time, and retries."""

from __future__ import annotations

import dataclasses
import math
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zo_bilevel.adapters.http.deadline import deadline
from zo_bilevel.adapters.http.pool import HTTPPool
from zo_bilevel.adapters.prompts.chat_answer import (
    Answer,
    FaultError,
    RefusedError,
    Usage,
    read_answer,
    read_body,
)
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger
from zo_bilevel.support.errors import InputError, SolveError, SolveTimeoutError, StopRunError
from zo_bilevel.support.redaction import hide

if TYPE_CHECKING:
    import tenacity

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0


class ChatClient:
    """This process's connections to an endpoint; a copy in another process makes its own.

    Args:
        url: Address of `/chat/completions`.
        key_variable: Environment variable that holds the key, or `None` for none.
        timeout_s: Seconds one attempt may take.
        retries: Further attempts.
        max_concurrent: Requests at once.
        requests_per_minute: Rate limit, or `None`.
    """

    def __init__(
        self,
        url: str,
        key_variable: str | None,
        timeout_s: float,
        retries: int,
        max_concurrent: int,
        requests_per_minute: float | None,
    ) -> None:
        self.url, self.key_variable = url, key_variable
        self.timeout_s, self.retries = timeout_s, retries
        self.max_concurrent, self.requests_per_minute = max_concurrent, requests_per_minute
        self._pool = HTTPPool(timeout_s, max_concurrent)
        self._begin_turns()

    def __reduce__(self) -> Any:  # noqa: ANN401 - as pickle has it
        options = (self.timeout_s, self.retries, self.max_concurrent, self.requests_per_minute)
        return ChatClient, (self.url, self.key_variable, *options)

    def _begin_turns(self) -> None:
        self._owner, self._lock, self._next = os.getpid(), threading.Lock(), 0.0

    def key(self) -> str:
        """The key, read from the environment for each use and kept nowhere.

        Raises:
            InputError: If the variable is not set.
        """
        if self.key_variable is None:
            return ""
        value = os.environ.get(self.key_variable, "").strip()
        if not value:
            raise InputError(
                f"there is no key: set the environment variable {self.key_variable}, or pass "
                "key_variable=None for a server that needs none"
            )
        return value

    def ask(self, body: Mapping[str, Any], ledger: ChatLedger) -> Answer:
        """Make one call, with retries.

        Raises:
            SolveError: If there is no answer; its `cost` is what may have been charged.
        """
        import tenacity

        if self._owner != os.getpid():  # a lock that was held during a fork stays locked
            self._begin_turns()
        key, costs = self.key(), [0.0]
        growing = tenacity.wait_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)
        own = growing + tenacity.wait_random(0.0, FIRST_WAIT_S)

        def wait(state: tenacity.RetryCallState) -> float:
            asked_s = _fault_of(state).wait_s
            if asked_s <= LONGEST_WAIT_S:  # else the run ends
                self._let_all_wait(asked_s)
            return asked_s or own(state)

        retrying = tenacity.Retrying(
            stop=lambda state: (
                state.attempt_number > self.retries or _fault_of(state).wait_s > LONGEST_WAIT_S
            ),
            wait=wait,
            retry=tenacity.retry_if_exception_type(FaultError),
            before_sleep=lambda _: ledger.count("retries"),
            reraise=True,
        )
        try:
            with self._pool.places():
                answer: Answer = retrying(self._try, body, key, ledger, costs)
        except FaultError as fault:
            attempts = retrying.statistics["attempt_number"]
            raise _final(fault, attempts, math.fsum(costs)) from None
        except SolveError as error:
            raise _priced(error, math.fsum(costs)) from None
        return dataclasses.replace(answer, cost=math.fsum(costs))

    def _try(
        self, body: Mapping[str, Any], key: str, ledger: ChatLedger, costs: list[float]
    ) -> Answer:
        """One attempt; what it cost is added to the costs, whatever becomes of it."""
        amount = ledger.reserve(body)
        try:
            answer, usage = self._attempt(body, key)
        except FaultError as fault:
            costs.append(_book(fault, amount, ledger))
            raise
        except RefusedError:
            ledger.lose(amount, may_be_charged=False)
            if not ledger.spent.calls:
                raise
            return Answer(unread_as="refused")  # these settings were taken: it is the example
        except SolveError:
            ledger.lose(amount, may_be_charged=False)
            raise
        except BaseException:
            ledger.lose(amount, may_be_charged=True)
            raise
        costs.append(ledger.settle(amount, usage))
        return answer

    def _let_all_wait(self, seconds: float) -> None:
        """What the server asks one request to wait holds for every request."""
        if seconds > 0.0:
            with self._lock:
                self._next = max(self._next, time.monotonic() + seconds)

    def _take_turn(self) -> None:
        """Wait for this request's place under the rate limit, and while the server asks for it."""
        gap = 0.0 if self.requests_per_minute is None else 60.0 / self.requests_per_minute
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            if gap or self._next > now:
                self._next = turn + gap
        if turn > now:
            time.sleep(turn - now)

    def _attempt(self, body: Mapping[str, Any], key: str) -> tuple[Answer, Usage | None]:
        import httpx

        client = self._pool.client()
        self._take_turn()
        headers = {"Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with (
                deadline(self.timeout_s),
                client.stream("POST", self.url, json=dict(body), headers=headers) as response,
            ):
                content = read_body(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            what = hide(f"cannot be reached: {error}", [key])
            raise FaultError(what, may_be_charged=False, is_away=True) from None
        except httpx.TimeoutException:
            what = f"gave no answer within timeout_s={self.timeout_s:g}"
            raise FaultError(what, may_be_charged=True, is_slow=True) from None
        except httpx.TransportError as error:
            what = hide(f"broke the connection: {error}", [key])
            raise FaultError(what, may_be_charged=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            what = hide(f"could not be asked: {type(error).__name__}: {error}", [key])
            raise SolveError(what) from None
        return read_answer(response, content, key)

    def close(self) -> None:
        """Close idle connections; the client may be used again afterwards."""
        self._pool.close()


def _fault_of(state: tenacity.RetryCallState) -> FaultError:
    fault = state.outcome.exception() if state.outcome else None
    return fault if isinstance(fault, FaultError) else FaultError("", may_be_charged=False)


def _final(fault: FaultError, attempts: int, paid: float) -> SolveError:
    is_long = fault.wait_s > LONGEST_WAIT_S
    is_over = fault.is_away or is_long
    kind = StopRunError if is_over else SolveTimeoutError if fault.is_slow else SolveError
    waits = f"; it asks to wait {fault.wait_s:g} s" if is_long else ""
    return _priced(kind(f"{fault} ({attempts} attempts{waits})"), paid)


def _priced(error: SolveError, paid: float) -> SolveError:
    error.cost = paid  # type: ignore[attr-defined]  # read by the dispatcher
    return error


def _book(error: FaultError, amount: float, ledger: ChatLedger) -> float:
    """What a failed attempt cost: by the server's count where it came, else at the most."""
    if error.usage is not None:
        return ledger.settle(amount, error.usage)
    return ledger.lose(amount, may_be_charged=error.may_be_charged)
