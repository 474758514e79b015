"""What calls of a chat model cost: prices, what was spent, and a limit that holds."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

from zo_bilevel.adapters.prompts.bill import Bill
from zo_bilevel.adapters.prompts.chat_answer import Answer
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.errors import InputError, StopRunError, unknown_name_message

TOKENS_A_PRICE = 1_000_000
TOKENS_A_MESSAGE = 64
"""Tokens that a server may put around a message, for the bound on the price of a call."""


class CostLimitError(StopRunError):
    """The next call might exceed `max_cost`: it was not made, and the run ends."""


@final
@dataclass(slots=True)
class Spent:
    """What was spent so far.

    Args:
        calls: Answers that the server counted in its `usage`.
        prompt_tokens: Their tokens, by the server's count.
        completion_tokens: The same for what it wrote.
        cost: Money, lost and unmetered calls included at the most they can have cost.
        retries: Attempts after the first.
        lost: Attempts whose answer did not arrive whole, though the server may have counted it.
        unmetered: Answers without a `usage`, or with one that counts no tokens of the request.
        unparsable: Answers that name no class.
        no_content: Answers without any text.
        tool_calls: Answers that call a tool instead.
        refused: Refusals.
        cut_short: Answers that end at the limit of tokens before they name a class, or that a
            metric does not find wholly right.
        filtered: Requests or answers that a content filter held back.
        too_long: Requests that are longer than the model takes.
        cached: Answers that were known already, at no cost.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    retries: int = 0
    lost: int = 0
    unmetered: int = 0
    unparsable: int = 0
    no_content: int = 0
    tool_calls: int = 0
    refused: int = 0
    cut_short: int = 0
    filtered: int = 0
    too_long: int = 0
    cached: int = 0

    @property
    def answers(self) -> int:
        """Answers that were paid for, with a count of tokens or without."""
        return self.calls + self.unmetered


@final
class ChatLedger:
    """Books every call, and refuses one that might exceed the limit.

    Args:
        model: Name of the model.
        prices: From names of models to the prices of a million tokens read and written.
        max_tokens: Most tokens of all answers to one call.
        max_cost: Limit in the unit of the prices, > 0, or `None`.

    Raises:
        InputError: If the model has no price, a price is negative, or there is a limit but no
            prices.
    """

    def __init__(
        self,
        model: str,
        prices: Mapping[str, tuple[float, float]] | None,
        max_tokens: int,
        max_cost: float | None,
    ) -> None:
        if max_cost is not None:
            max_cost = finite_number("max_cost", max_cost, "> 0")
        if max_cost is not None and prices is None:
            raise InputError("max_cost needs prices: {model: (per million read, written)}")
        self.price = (0.0, 0.0) if prices is None else _price(model, prices)
        self.max_tokens, self.max_cost = max_tokens, max_cost
        self.spent = Spent()
        self.bill = Bill()
        self._surplus, self._in_flight, self._lock = 0.0, 0, threading.Condition()

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_lock", "_in_flight", *(() if self.max_cost is not None else ("bill",)))
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"bill": Bill(), **state})
        self._in_flight, self._lock = 0, threading.Condition()

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Money for so many tokens."""
        read, written = self.price
        return (prompt_tokens * read + completion_tokens * written) / TOKENS_A_PRICE

    def most(self, body: Mapping[str, Any]) -> float:
        """The most that one call can cost: no token is shorter than a byte.

        Args:
            body: The request; whatever it holds besides messages may be read by the model, too.
        """
        size = len(json.dumps(body, ensure_ascii=False).encode())
        size += TOKENS_A_MESSAGE * len(body["messages"])
        return self.cost_of(size, self.max_tokens) + self._surplus

    def reserve(self, body: Mapping[str, Any]) -> float:
        """Set aside what a call can cost; where that is too much, wait for the calls in flight.

        Raises:
            CostLimitError: If the limit might be exceeded.
        """
        with self._lock:
            while missing := self.bill.add(amount := self.most(body), self.max_cost):
                if not self._in_flight:
                    limit = self.max_cost or 0.0
                    raise CostLimitError(
                        f"max_cost={limit:g} might be exceeded: "
                        f"{max(missing + limit - amount, 0):.3g} are spent, the next call may cost "
                        f"{amount:.3g}"
                    )
                self._lock.wait(1.0)
            self._in_flight += 1
            return amount

    def _close_call(self, correction: float) -> None:
        self._in_flight -= 1
        if correction:
            self.bill.add(correction)
        self._lock.notify_all()

    def settle(self, amount: float, usage: Mapping[str, Any] | None) -> float:
        """Book an answer by the server's own count; without one at the most it can have cost."""
        counts = _counts(usage)
        with self._lock:
            if counts is None:
                self._close_call(0.0)
                self.spent.unmetered += 1
                self.spent.cost += amount
                return amount
            cost = self.cost_of(*counts)
            self.spent.calls += 1
            self.spent.prompt_tokens += counts[0]
            self.spent.completion_tokens += counts[1]
            self.spent.cost += cost
            self._surplus += max(cost - amount, 0.0)  # more than was allowed for
            self._close_call(cost - amount)
            return cost

    def lose(self, amount: float, *, may_be_charged: bool) -> float:
        """Book an attempt without an answer."""
        with self._lock:
            self._close_call(0.0 if may_be_charged else -amount)
            if not may_be_charged:
                return 0.0
            self.spent.lost += 1
            self.spent.cost += amount
            return amount

    def count(self, name: str) -> None:
        """Count one retry, unparsable or cached answer."""
        with self._lock:
            setattr(self.spent, name, getattr(self.spent, name) + 1)

    def count_unread(self, answer: Answer) -> None:
        """Count an answer that cannot be read under the name of its reason, once."""
        if not answer.is_known:
            self.count(answer.unread_as)

    def facts(self) -> dict[str, Any]:
        """What was spent, by name."""
        with self._lock:
            return asdict(self.spent)


def _price(model: str, prices: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    if model not in prices:
        raise InputError("prices: " + unknown_name_message("model", model, prices))
    price = prices[model]
    try:
        read, written = (float(part) for part in price)
    except (TypeError, ValueError) as error:
        raise InputError(f"the price of {model!r} must be two numbers, got {price!r}") from error
    if not (0 <= read < math.inf and 0 <= written < math.inf):
        raise InputError(f"the price of {model!r} must be >= 0, got {price!r}")
    return read, written


def _counts(usage: Mapping[str, Any] | None) -> tuple[int, int] | None:
    if not isinstance(usage, Mapping):
        return None
    found = [usage.get("prompt_tokens"), usage.get("completion_tokens", 0)]
    found = [int(n) if isinstance(n, str) and n.isdecimal() else n for n in found]
    found = [int(n) if isinstance(n, float) and n.is_integer() else n for n in found]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in found):
        return None
    if not found[0]:  # a request has tokens: this server does not count
        return None
    return int(found[0] or 0), int(found[1] or 0)
