"""Judging the final point afresh when solves are noisy, so that lucky draws do not win.

With noise the lowest loss of a run is an underestimate: the luckiest of many draws. A share of the
budget is kept back to solve the recommended point and its rival, that of the lowest loss, on fresh
seeds, the same for both. Once they are told apart, or half of the share has not done it, the rest
goes to the one that is reported: the mean of its draws, with an interval.

Source: Kim, Nelson (2001), "A fully sequential procedure for indifference-zone selection in
simulation": differences on common seeds, and who has lost gets no more draws.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

import numpy as np

from zo_bilevel.methods.state import Notes
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.result import Record
from zo_bilevel.run.seen_losses import SeenLosses
from zo_bilevel.run.verdict import Verdict, judged
from zo_bilevel.solve.evaluation import CONFIRM_ROLE, Evaluation, Point
from zo_bilevel.solve.streams import CONFIRM_STREAM
from zo_bilevel.support.arrays import FloatArray

CONFIRMING_SHARE: Final = 0.1
LEAST_DRAWS, LEAST_SHARE = 6, 0.25
"""Small budgets keep back so many solves, and no more than this share."""
AGREEING_DRAWS: Final = 4
"""So many are enough where they agree to the last bit and nothing says that they might not."""
NARROW_DRAWS, NARROW_WIDTH = 8, 0.01
"""So many are enough where half the interval is no more than this share of the loss."""
ROUNDING: Final = 1e-9
"""Of a sum of money."""
FEWEST_FOR_RIVAL: Final = 5
"""With fewer draws the recommendation stands: it rests on many solves."""
RIVAL_SHARE: Final = 0.25
"""Of the draws, the most that a rival gets."""
OVERRULED_BY_LUCK: Final = 0.023
"""How often the lowest loss may overrule a recommendation that is as good."""


def solves_kept_back(max_solves: int) -> int:
    """Solves of a budget that judge the final point: a tenth, at least six, at most a quarter.

    Example:
        >>> [solves_kept_back(budget) for budget in (3, 20, 40, 200)]
        [0, 5, 6, 20]
    """
    least = min(LEAST_DRAWS, int(LEAST_SHARE * max_solves))
    return max(math.ceil(CONFIRMING_SHARE * max_solves), least) if least else 0


@final
class FinalPoint:
    """Keeps back what judges the final point of a run, and judges it.

    Args:
        evaluator: Runs the solves.
        ledger: Charged for them.
        callback: Told each solve.

    Attributes:
        stop: Why the callback ended the run, in words.
    """

    def __init__(
        self, evaluator: Evaluator, ledger: Ledger, callback: Callable[[Record], None] | None
    ) -> None:
        self._evaluator, self._ledger, self._callback = evaluator, ledger, callback
        self._drawn: dict[tuple[bytes, int], Evaluation] = {}
        self._is_over = False
        self.stop = ""

    def keep_back(self, notes: Notes) -> None:
        """Set aside what the final point is judged by, of solves and of money.

        Where cheap solves recommend, it is whole full ones, at least one where there is as much.
        """
        if not may_be_noisy(self._evaluator, notes):
            return
        ledger, price = self._ledger, notes.full_price
        solves, cost = ledger.budget.max_solves, ledger.budget.max_cost
        if cost is not None:
            ledger.cost_reserve = self._money(cost)
            if 0.0 < price <= cost - ledger.cost:
                ledger.cost_reserve = price * max(int(CONFIRMING_SHARE * cost / price), 1)
        if solves is not None:
            kept = max(solves_kept_back(solves), int(price > 0.0))
            ledger.reserve = max(self._if_noisy(kept) - len(self._drawn), 0)

    def _money(self, cost: float) -> float:
        price = self._ledger.prices.highest
        kept = max(CONFIRMING_SHARE * cost, min(LEAST_DRAWS * price, LEAST_SHARE * cost))
        return min(kept, LEAST_DRAWS * price) if self._ledger.losses.seem_exact else kept

    def _if_noisy(self, draws: int) -> int:
        return min(draws, LEAST_DRAWS) if self._ledger.losses.seem_exact else draws

    def make_room(self, points: Sequence[Point], notes: Notes) -> None:
        """Before the search ends: see whether the solver repeats itself after all.

        Two draws of the best point that agree, and the search has most of the rest.
        """
        ledger = self._ledger
        if ledger.solves == 0 and ledger.affordable(points) < len(points):
            ledger.reserve = 0  # rather a search that nothing judges than none
            return
        can_tell = ledger.best is not None and not self._drawn and not ledger.losses.may_differ
        if not can_tell or ledger.reserve <= LEAST_DRAWS:
            return
        if ledger.affordable(points) < len(points):
            assert ledger.best is not None  # noqa: S101 - as looked at above
            ledger.reserve = 0
            self._draw([ledger.best.point.x], range(2))
            self.keep_back(notes)

    def verdict(self, notes: Notes) -> Verdict | None:
        """Solve the candidates again on fresh seeds and choose.

        Args:
            notes: The method's recommendation competes with the lowest loss.

        Returns:
            The verdict, or `None` when no budget is left for it, or all solves failed.
        """
        best = self._ledger.best
        if best is None or not may_be_noisy(self._evaluator, notes):
            return None
        allowed, self._is_over = self._allowed(notes), bool(self.stop)
        self._ledger.reserve, self._ledger.cost_reserve = 0, 0.0
        lowest, recommended = best.point.x, notes.recommended
        if recommended is None or self._are_one(recommended, lowest):
            return self._judged(lowest, allowed)
        pairs = self._pairs_that_overrule(recommended, lowest, allowed)
        if pairs:  # what chose it does not judge it, where there is more
            more = self._judged(lowest, allowed, pairs)
            return more if more and more.draws > 1 else self._judged(lowest, 0)
        return self._judged(recommended, allowed) or self._judged(lowest, 0)

    def _are_one(self, x: FloatArray, other: FloatArray) -> bool:
        """Whether the solver cannot tell two points apart."""
        space = self._evaluator.problem.space
        one, two = (space.encode(space.decode(point)) for point in (x, other))
        return np.array_equal(x, other) or np.array_equal(one, two)

    def _allowed(self, notes: Notes) -> int:
        """Draws, those made included; where the search ended early, a tenth of what it took."""
        ledger, limits = self._ledger, []
        if ledger.budget.max_solves is not None:
            limits.append(max(solves_kept_back(ledger.budget.max_solves), notes.full_price > 0.0))
        if ledger.budget.max_cost is not None and ledger.prices.highest > 0.0:
            money = ledger.cost_reserve * (1.0 + ROUNDING) or self._money(ledger.budget.max_cost)
            limits.append(max(int(money / ledger.prices.highest), 1))
        kept = min(limits, default=0)
        taken = math.ceil(CONFIRMING_SHARE * (ledger.solves - len(self._drawn) + kept))
        return self._if_noisy(min([*limits, max(NARROW_DRAWS, taken)]))

    def _pairs_that_overrule(
        self, recommended: FloatArray, lowest: FloatArray, allowed: int
    ) -> int:
        """After how many pairs on common seeds the lowest loss has proved better; 0 for never."""
        looks = looks_at(allowed)
        for count in looks:
            self._draw([recommended, lowest], range(count))
            pairs = [
                self._loss(lowest, repeat) - self._loss(recommended, repeat)
                for repeat in range(count)
            ]
            verdict = overrules(pairs, self._ledger.losses, OVERRULED_BY_LUCK / len(looks))
            if verdict is not None or self._is_over:
                return count if verdict else 0
        return 0

    def _judged(self, x: FloatArray, allowed: int, first: int = 0) -> Verdict | None:
        """Draw one point until its interval is good, or what is allowed is used; from a seed on."""
        count = len(self._of(x, first))
        while not self._is_over and len(self._drawn) < allowed and not self._is_enough(x, first):
            wanted = max(count, NARROW_DRAWS - count if self._ledger.losses.may_differ else 2)
            more = min(wanted, allowed - len(self._drawn))
            made = len(self._drawn)
            self._draw([x], range(first + count, first + count + more))
            count += len(self._drawn) - made
        return judged(self._of(x, first), self._ledger.losses)

    def _is_enough(self, x: FloatArray, first: int) -> bool:
        losses = np.array([evaluation.loss for evaluation in self._of(x, first) if evaluation.ok])
        if len(losses) < AGREEING_DRAWS:
            return False
        found = self._ledger.losses.interval(losses)
        width = 0.5 * (found.upper - found.lower)
        is_narrow = len(losses) >= NARROW_DRAWS and width <= NARROW_WIDTH * abs(found.value)
        return width == 0.0 or is_narrow

    def _of(self, x: FloatArray, first: int) -> list[Evaluation]:
        key = x.tobytes()
        return [e for (at, repeat), e in self._drawn.items() if at == key and repeat >= first]

    def _loss(self, x: FloatArray, repeat: int) -> float:
        """Of a draw; NaN where it was not made, or failed."""
        found = self._drawn.get((x.tobytes(), repeat))
        return found.loss if found is not None and found.ok else math.nan

    def _draw(self, places: Sequence[FloatArray], repeats: Iterable[int]) -> None:
        """Solve points on fresh seeds, as far as the budget pays for them."""
        ledger, evaluator = self._ledger, self._evaluator
        points = [
            Point(x, (CONFIRM_STREAM, repeat), CONFIRM_ROLE)
            for repeat in repeats
            for x in places
            if (x.tobytes(), repeat) not in self._drawn
        ]
        first = 0
        while first < len(points) and not self._is_over:  # in parts, as far as prices are known
            room = ledger.affordable(points[first:])
            part = evaluator.evaluate_part(points[first : first + room], first) if room else []
            self._is_over = not room or len(part) < room
            if len(part) < room and evaluator.stopped is None:
                ledger.out_of_time()
            ledger.rounds += first == 0 and bool(part)
            for evaluation in part:
                at = evaluation.point.x.tobytes(), evaluation.point.stream[1]
                self._drawn[at] = evaluation
            try:
                ledger.charge_all(part, self._callback)
            except StopIteration as stop:
                self._is_over, self.stop = True, str(stop) or "stopped by the callback"
            first += len(part)


def may_be_noisy(evaluator: Evaluator, notes: Notes) -> bool:
    """Whether solves take a seed, or the method found them noisy."""
    return evaluator.solve.with_seed or notes.noisy


def looks_at(allowed: int) -> list[int]:
    """After how many pairs two points are compared, when so many draws are allowed in all.

    Example:
        >>> looks_at(4), looks_at(6), looks_at(40)
        ([], [3], [2, 5, 10])
    """
    count, looks = max(int(RIVAL_SHARE * allowed), min(3, allowed // 2)), list[int]()
    while allowed >= FEWEST_FOR_RIVAL and count >= 2:
        looks.append(count)
        count //= 2
    return looks[::-1]


def overrules(
    differences: Sequence[float], losses: SeenLosses, by_luck: float = OVERRULED_BY_LUCK
) -> bool | None:
    """Whether the lowest loss proves better than the recommended point; `None` for neither.

    Args:
        differences: Its losses on fresh seeds minus those of the other; NaN where one is missing.
        losses: All of the run.
        by_luck: How often it may, when both are as good.
    """
    known = np.array([one for one in differences if not math.isnan(one)])
    if len(known) < 2:
        return None
    found = losses.difference(known, 1.0 - 2.0 * by_luck)
    if found.upper < 0.0:
        return True
    return False if found.lower > 0.0 else None
