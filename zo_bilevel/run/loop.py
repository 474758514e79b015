"""The one outer loop: asks a method, runs the round, keeps the books, stops in words."""

import os
from collections.abc import Callable, Sequence
from functools import partial

from zo_bilevel.methods.base import Method
from zo_bilevel.methods.state import State
from zo_bilevel.methods.stopping import StopRules
from zo_bilevel.problem.problem import Problem
from zo_bilevel.run.asynchronous import asynchronous_loop, check_asynchronous
from zo_bilevel.run.budget import Budget
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.run.final_point import FinalPoint
from zo_bilevel.run.identity import Initial, open_recorder
from zo_bilevel.run.known import Known, warm_start
from zo_bilevel.run.ledger import Ledger
from zo_bilevel.run.lifecycle import INTERRUPTED, begin, end, keep_books, noting_refusals, recording
from zo_bilevel.run.progress import Progress
from zo_bilevel.run.reporting import Callback, reporting
from zo_bilevel.run.result import Result
from zo_bilevel.run.result_of import result_of
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.solve.dispatch.distributed import check_limits, default_dispatcher
from zo_bilevel.solve.evaluation import Evaluation, check_asked
from zo_bilevel.store.abstract import AbstractStore
from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.preemption import ends_when_preempted


def minimize(
    problem: Problem,
    method: Method | None = None,
    *,
    initial: Initial = None,
    known: Known = None,
    max_solves: int | None = None,
    max_seconds: float | None = None,
    max_cost: float | None = None,
    tolerance: float | None = None,
    ftol: float | None = None,
    xtol: float | None = None,
    patience: int | None = None,
    restarts: bool = True,
    seed: int = 0,
    dispatcher: Dispatcher | None = None,
    store: AbstractStore | str | os.PathLike[str] | None = None,
    round_width: int = 1,
    asynchronous: bool = False,
    max_failure_rate: float = 0.8,
    callback: Callback | None = None,
    progress: Progress | bool = False,
    command: Sequence[str] = (),
) -> Result:
    """Minimise the outer objective over the meta-parameters.

    Args:
        problem: Space, inner solver, outer objective.
        method: How to search; default `DefaultMethod()`, Gauss-Newton when the inner solution is
            a vector whose outer objective is known, else a scalar trust region.
        initial: Start by name, partial or absent, a function from the seed to one, or a result;
            missing names take the middle of their range. Default with `known`: the best of it.
        known: Solves that were made before, whatever the objective and the bounds were: a result, a
            store or its file, a `DataFrame` with a column for each parameter and one "theta", or
            pairs of named values and an inner solution. None of them is made again, and the best
            one, as the problem sees it now, is an answer of this run too; Gauss-Newton regresses
            through those near the start. Of an inner solver that takes a seed, they tell the start.
        max_solves: Budget in new solves; 1000 when no budget is given at all; 0 with `known`.
        max_seconds: Budget in wall-clock seconds, with a store those of all lives of the run:
            when time is up, the remaining solves of the round are skipped. The same call is then a
            replay. A solve that runs is killed under `Joblib` on this machine; in this process it
            is not cut short.
            Refused with `Distributed`, whose ranks' clocks differ.
        max_cost: Budget in the money that the inner solver reports. No solve is started that
            would overrun it at the highest price seen; of several at once one may cost that much,
            and the others their mean and three standard deviations, or twice their mean. Only
            prices beyond that overrun it, by a part of one round.
        tolerance: Stop once the loss is at or below this value; `None` for no such rule.
        ftol: Stop once a step as good as predicted changes the loss by less than this share, > 0,
            as in scipy's `least_squares`. For `DefaultMethod`, `GaussNewton` and `TrustRegion`,
            all parameters real; judged once every direction is known, so never in the first steps.
        xtol: Stop once a step is shorter than `xtol * (xtol + |phi|)`, > 0; for the same methods.
        patience: Stop after so many solves in a row without improvement, >= 1; for every method.
        restarts: `False`: stop where the first local search ends, instead of looking elsewhere;
            for the same methods as `ftol`.
        seed: Seed of the run, >= 0. Same seed, same numbers, at any number of workers.
        dispatcher: Runs the solves; default `Serial()`, or `Distributed()` on the ranks of an
            initialised `torch.distributed` group.
        store: SQLite file that remembers every solve, "postgresql://..." for a database, or an
            open store: the same call again finds its finished solves and goes on, to the last bit,
            wherever it was stopped.
        round_width: Solves that may run at once at no extra time: set it to the number of
            workers. It shapes the search, so numbers depend on it, but not on the dispatcher.
        asynchronous: Keep `round_width` solves running: each answer is used as it arrives, and the
            next solve begins at once. The order of arrival, which a store records, is then part
            of the numbers. Methods that need whole rounds, and dispatchers that run them, refuse.
        max_failure_rate: Stop when more than this share of solves failed, in [0, 1].
        callback: Called with each `Record`, in order.
        progress: Whether to show solves, failures, rate, loss and time left: a bar on a terminal,
            else a few lines to the logger "zo_bilevel" of Python's `logging`. That logger is told
            when a run starts, restarts and stops, and why solves fail, in any case.
        command: Words of the command line that started the run, kept in the store for
            `zo-bilevel resume`.

    Returns:
        The best point found and the history. On Ctrl-C, and on the SIGTERM or SIGHUP of a queue
        that takes its machine back, the best so far. When the inner solver
        takes a seed, or the method finds it noisy, a tenth of the budget (of few solves up to a
        quarter) is kept back to judge the final point on fresh seeds: `loss` is then the mean of
        `draws` solves, with its 95 % `interval` and its `standard_error`.

    Raises:
        InputError: If an argument breaks its rule, before the first solve.
        InnerSolverError: If the first solve is unusable, or no solve succeeded.

    Example:
        >>> from zo_bilevel import Real, Space, SquaredError
        >>> def simulate(phi):
        ...     return [phi["a"] ** 2, phi["a"]]
        >>> problem = Problem(Space(a=Real(0, 4)), simulate, SquaredError([4.0, 2.0]))
        >>> round(minimize(problem, max_solves=30).phi["a"], 6)
        2.0
    """
    method = _checked(problem, method, max_failure_rate)
    if callback is not None and not callable(callback):
        raise InputError(f"callback must be a function of a Record, got {callback!r}")
    dispatcher = default_dispatcher() if dispatcher is None else dispatcher
    check_limits(dispatcher, max_seconds)
    check_asynchronous(dispatcher, asynchronous)
    warm = warm_start(problem, initial, known, seed)
    problem, start = warm.problem, warm.start
    moved = problem.start_note(start)
    limits = Budget(max_solves, max_seconds, max_cost, is_zero_enough=bool(warm.evaluations))
    ledger = Ledger(limits, space=problem.space)
    ledger.know(warm.evaluations)
    rules = StopRules(tolerance, ftol, xtol, patience, restarts)
    settings = {
        "max_solves": ledger.budget.max_solves,
        "max_seconds": max_seconds,
        "max_cost": max_cost,
        "tolerance": rules.tolerance,
        "round_width": round_width,
        "stop rules": rules.text,
        "asynchronous": asynchronous,
        "known": warm.digest,
    }
    open_run = partial(
        open_recorder,
        problem=problem,
        method=method.name,
        seed=seed,
        initial=warm.initial,
        settings=settings,
        command=command,
    )
    with noting_refusals(store, open_run, method, seed):
        state = method.start(
            problem,
            seed,
            initial=start,
            round_width=round_width,
            max_solves=ledger.budget.max_solves or None,
            max_cost=ledger.budget.max_cost,
            rules=rules,
            asynchronous=asynchronous,
            known=warm.evaluations,
        )
    with (
        ends_when_preempted(),
        recording(store, open_run, method, seed, ledger) as recorder,
        reporting(f"{method.name}, seed {seed}", ledger, progress, callback) as report,
    ):
        evaluator = Evaluator(
            problem,
            dispatcher,
            seed,
            recorder,
            ledger.seconds_left,
            ledger.time.spent_before,
            ledger.time.go_on,
        )
        evaluator.know(warm.solves, warm.evaluations)
        evaluator.warm_up()
        if recorder is not None:
            begin(recorder, ledger)
            keep_books(recorder.store, problem.inner)
        try:
            stop_reason = partial(_stop_reason, ledger, rules, max_failure_rate)
            loop = asynchronous_loop if asynchronous else _loop
            final_point = FinalPoint(evaluator, ledger, report)
            reason = loop(method, state, evaluator, ledger, stop_reason, report, final_point)
            verdict = None if evaluator.stopped else final_point.verdict(state.notes)
            if evaluator.stopped is not None:
                reason = evaluator.stopped.error
                ledger.cost += evaluator.stopped.cost
        except KeyboardInterrupt:
            evaluator.dispatcher.close()
            if ledger.best is None:
                raise
            reason, verdict = INTERRUPTED, None
        finally:
            state.close()
        result = result_of(
            problem, method, seed, evaluator, ledger, reason, verdict, state.notes, moved
        )
        if recorder is not None:
            end(recorder, method, result, ledger, state.notes.broken)
        report.finished(result)
    return result


def _checked(problem: Problem, method: Method | None, max_failure_rate: float) -> Method:
    """The method, or the default one, once the arguments keep their rules."""
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a zb.Problem, got {type(problem).__name__}")
    if not 0 <= finite_number("max_failure_rate", max_failure_rate) <= 1:
        raise InputError(f"max_failure_rate must lie in [0, 1], got {max_failure_rate}")
    if method is None:
        from zo_bilevel.methods.default import DefaultMethod

        method = DefaultMethod()
    if not isinstance(method, Method):
        raise InputError(f"method must be a Method, got {type(method).__name__}")
    return method


def _stop_reason(ledger: Ledger, rules: StopRules, max_failure_rate: float) -> str:
    """Why the run is over after the solves so far, in words; empty when it is not."""
    reason = ""
    if ledger.improvements:
        best = ledger.improvements[-1]
        reason = rules.after_solve(best.loss, ledger.solves - best.solve)
    return reason or ledger.failure_reason(max_failure_rate)


def _loop(
    method: Method,
    state: State,
    evaluator: Evaluator,
    ledger: Ledger,
    stop_reason: Callable[[], str],
    report: Callback,
    final_point: FinalPoint,
) -> str:
    while not state.notes.finished and (points := method.ask(state)):
        check_asked(points, evaluator.problem.space.size)
        final_point.keep_back(state.notes)
        final_point.make_room(points, state.notes)
        if final_point.stop:
            return final_point.stop
        evaluations: list[Evaluation] = []
        while len(evaluations) < len(points):  # in parts, as far as prices are known
            first = len(evaluations)
            room = ledger.affordable(points[first:])
            if room == 0:
                return ledger.spent_reason()
            part = evaluator.evaluate_part(points[first : first + room], first)
            ledger.rounds += first == 0 and bool(part)
            try:
                ledger.charge_all(part, report)
            except StopIteration as stop:
                return str(stop) or "stopped by the callback"
            if reason := stop_reason():
                return reason
            if len(part) < room:  # time ran out, or a solve ended the run
                return ledger.spent_reason() if evaluator.stopped else ledger.out_of_time()
            evaluations += part
        state = method.tell(state, evaluations)
    reason = state.stop_reason or "the method stopped and gave no reason"
    return state.notes.finished or ledger.believed(reason, has_slid=state.notes.has_slid)
