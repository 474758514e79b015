"""The ledger that counts what a run has spent."""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from zo_bilevel.methods.state import LAST_SOLVES
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import WRONG_TYPE
from zo_bilevel.run.budget import Budget, PaidTime
from zo_bilevel.run.prices import Prices
from zo_bilevel.run.result import HISTORY_BYTES, Record
from zo_bilevel.run.run_text import single_values
from zo_bilevel.run.runs import Improvement
from zo_bilevel.run.scattered import Places
from zo_bilevel.run.seen_losses import SeenLosses
from zo_bilevel.solve.evaluation import NEVER_BEST, BestSoFar, Evaluation, Point
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

USER_MISTAKE_PREFIXES = (f"failed: {InputError.__name__}: ", f"invalid: {WRONG_TYPE}")
"""A first solve that ends so is the user's mistake: further points would only repeat it."""
MIN_SOLVES_TO_JUDGE_FAILURES = 20
MIN_SOLVES_TO_JUDGE_PRICES = 100


@final
class Ledger:
    """Counts what a run has spent, the same way for every method, and keeps its history.

    Args:
        budget: The limits.
        clock: Gives seconds.
        space: Of the problem, to keep single values of the best points.
    """

    def __init__(
        self,
        budget: Budget,
        clock: Callable[[], float] = time.perf_counter,
        space: Space | None = None,
    ) -> None:
        self.budget = budget
        self.improvements: list[Improvement] = []
        self._space = space
        self.solves = 0
        self.rounds = 0
        self.cost = 0.0
        self.prices = Prices()
        self.failures: Counter[str] = Counter()
        self._best, self._places, self.losses = BestSoFar(), Places(), SeenLosses()
        self.reserve = 0
        self.cost_reserve = 0.0
        self.first_error = ""
        self.history: list[Record] = []
        self._phi_room = self._theta_room = HISTORY_BYTES
        self._clock = clock
        self._started = clock()
        self.time = PaidTime(clock)

    @property
    def best(self) -> Evaluation | None:
        """The best solve, those that judge the final point apart."""
        return self._best.evaluation

    @property
    def best_loss(self) -> float:
        """Lowest loss of those that keep all constraints; infinity before any did."""
        best = self.best
        return best.loss if best is not None and best.is_feasible else math.inf

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return self._clock() - self._started

    def seconds_left(self) -> float:
        """Of the budget in seconds, earlier sessions of the run included; infinite without one."""
        return self.time.left(self.budget.max_seconds)

    def steer(self, limits: Mapping[str, Any]) -> None:
        """Take other limits from now on; `limits`: of `Budget`, by name."""
        names = ("max_solves", "max_seconds", "max_cost")
        self.budget = Budget(*(limits.get(name) for name in names))

    @property
    def spent(self) -> tuple[float, int, float]:
        """Seconds of all lives of the run, those of replays not, answers until then, and limit."""
        if self.time.is_replaying or self.has_ended:
            return self.time.on_record
        return (self.time.paid, len(self.history), self.budget.max_seconds or 0.0)

    @property
    def has_ended(self) -> bool:
        """Whether the record says that these seconds are spent."""
        limit = self.budget.max_seconds
        return limit is not None and self.time.on_record[0] >= limit

    def out_of_time(self) -> str:
        """Why a round was cut, in words; a dispatcher may have cut it a little early."""
        left = self.seconds_left()
        self.time.before += left if 0.0 < left < math.inf else 0.0
        return self.spent_reason()

    def room(self, wanted: int) -> int:
        """How many of the full solves wanted may still be started without overrunning a limit."""
        return self._room([None] * wanted)

    def _room(self, levels: Sequence[float | None]) -> int:
        limits, wanted = self.budget, len(levels)
        if limits.max_solves is not None:
            wanted = min(wanted, limits.max_solves - self.reserve - self.solves)
        if self.has_ended and len(self.history) >= self.time.on_record[1]:
            self.time.go_on()
        if self.seconds_left() <= 0:
            return 0
        if limits.max_cost is not None and self.prices.highest == 0.0:
            wanted = min(wanted, max(1, len(self.history) // 4))
        elif limits.max_cost is not None:
            left = limits.max_cost - self.cost_reserve - self.cost
            wanted = self.prices.payable(levels[: max(wanted, 0)], left)
        return max(wanted, 0)

    def affordable(self, points: Sequence[Point]) -> int:
        """How many points of a round, from the first, may be started."""
        count, limit = self._room([point.level for point in points]), self.budget.max_solves
        left = math.inf if limit is None else limit - self.reserve - self.solves
        while count and sum(point.solves for point in points[:count]) > left:
            count -= 1
        return count

    def spent_reason(self) -> str:
        """Which limit is reached, in words."""
        limits = self.budget
        if limits.max_solves is not None and self.solves >= limits.max_solves - self.reserve:
            return f"budget of {limits.max_solves} solves spent"
        if limits.max_seconds is not None and self.seconds_left() <= 0:
            seconds, _, limit_then = self.time.on_record
            more = f": {seconds:.3g} are on record" if limit_then > limits.max_seconds else ""
            return f"budget of {limits.max_seconds:g} seconds spent{more}"
        if limits.max_cost is None:
            return f"budget of {limits.max_solves} solves: the next round needs more than is left"
        if self.cost_reserve > 0.0 and self.cost + self.prices.highest <= limits.max_cost:
            return (
                f"budget of {limits.max_cost:g} in cost spent: the next solve may cost "
                f"{self.prices.highest:.4g}, and the rest was kept back to judge the final point"
            )
        return (
            f"budget of {limits.max_cost:g} in cost: {self.cost:.4g} spent, the next solve may "
            f"cost {self.prices.highest:.4g}"
        )

    def charge(self, evaluation: Evaluation) -> Record:
        """Book one solve; `evaluation`: in the order of its round."""
        self.solves += 0 if evaluation.is_known else evaluation.point.solves
        self.cost += evaluation.cost
        self.prices.see(evaluation.point.level, evaluation.cost)
        self._places.add(evaluation.point.x, is_ok=evaluation.ok)
        self.losses.see(evaluation, self._setting_of(evaluation))
        if not evaluation.ok:
            self.failures[evaluation.status] += 1
            self.first_error = self.first_error or f"{evaluation.status}: {evaluation.error}"
        if evaluation.ok and evaluation.point.role not in NEVER_BEST:
            self._best.see(evaluation)
        record = Record(
            self.solves,
            self.rounds,
            self.seconds,
            evaluation.point.role,
            evaluation.status,
            evaluation.loss,
            self.best_loss,
            self.cost,
            self.phi_of(evaluation),
            evaluation.inner_solution,
            evaluation.error,
            evaluation.violation,
        )
        self.history.append(self._as_far_as_it_fits(record, evaluation))
        if evaluation is self.best and evaluation.is_feasible:
            self._improve(record)
        return record

    def know(self, evaluations: Sequence[Evaluation]) -> None:
        """Let solves that were made before the run, for nothing, be the best so far."""
        for evaluation in evaluations:
            if self._best.see(evaluation) and evaluation.is_feasible:
                phi = self.phi_of(evaluation)
                values = {} if self._space is None else single_values(self._space, phi)
                self.improvements.append(Improvement(0, 0, 0.0, evaluation.loss, values=values))

    def phi_of(self, evaluation: Evaluation) -> dict[str, Any]:
        """The meta-parameters of a solve by name; none where the space is not known."""
        return {} if self._space is None else self._space.decode(evaluation.point.x)

    def _setting_of(self, evaluation: Evaluation) -> FloatArray:
        """Its point, integers and choices rounded."""
        x, space = evaluation.point.x, self._space
        is_mixed = space is not None and space.discrete.any()
        return space.encode(space.decode(x)) if space is not None and is_mixed else x

    def _as_far_as_it_fits(self, record: Record, evaluation: Evaluation) -> Record:
        theta = evaluation.theta
        self._phi_room -= evaluation.point.x.nbytes
        self._theta_room -= 0 if theta is None else theta.nbytes
        if self._phi_room < 0:
            record = dataclasses.replace(record, phi={})
        return record if self._theta_room >= 0 else dataclasses.replace(record, theta=None)

    def _improve(self, record: Record) -> None:
        values = {} if self._space is None else single_values(self._space, record.phi)
        at = record.solve, record.round, record.seconds
        self.improvements.append(Improvement(*at, record.loss, values=values))

    def charge_all(
        self, evaluations: Sequence[Evaluation], callback: Callable[[Record], None] | None
    ) -> None:
        """Book solves in order and tell each to the callback.

        All are booked, also where the callback ends the run with `StopIteration`.
        """
        stop: StopIteration | None = None
        for evaluation in evaluations:
            record = self.charge(evaluation)
            try:
                if callback is not None and stop is None:
                    callback(record)
            except StopIteration as asked:
                stop = asked
        if stop is not None:
            raise stop

    def believed(self, reason: str, *, has_slid: bool = False) -> str:
        """The method's reason, unless it claims to have converged where solves failed.

        An edge is named only where the failures do not lie among good solves.

        Args:
            reason: Of the method.
            has_slid: Whether it went along an edge of failures; then one of the last solves that
                failed is enough, else it takes half of them.
        """
        last = self.history[-LAST_SOLVES:]
        failed = sum(record.status != "ok" for record in last)
        is_at_edge = failed > 0 if has_slid else 2 * failed >= len(last)
        claims = "converged: nothing left", "nothing left to gain was found"
        if not reason.startswith(claims) or not is_at_edge:
            return reason
        if self.best is not None and self._places.are_scattered(len(last), self.best.point.x):
            return (
                f"nothing left to gain was found; {failed} of the last {len(last)} solves failed, "
                "here and there among good ones"
            )
        return (
            f"the search ended where solves fail: {failed} of the last {len(last)} did; there may "
            "be better points along that edge"
        )

    def failure_reason(self, max_failure_rate: float) -> str:
        """Why the run is hopeless, in words, or nothing."""
        if self.best is None and self.first_error.startswith(USER_MISTAKE_PREFIXES):
            return f"the first solve {self.first_error}"
        limits = self.budget
        if (
            limits.max_cost is not None
            and limits.max_solves is limits.max_seconds is None
            and self.cost == 0.0
            and len(self.history) >= MIN_SOLVES_TO_JUDGE_PRICES
        ):
            return (
                f"max_cost={limits.max_cost:g} never ends this run: {len(self.history)} solves had "
                "no price; return zb.WithCost(theta, cost), or give max_solves"
            )
        failed = sum(self.failures.values())
        if self.solves >= MIN_SOLVES_TO_JUDGE_FAILURES and failed > max_failure_rate * self.solves:
            return (
                f"{failed} of {self.solves} solves failed, more than max_failure_rate="
                f"{max_failure_rate:g} allows; the first one {self.first_error}"
            )
        return ""
