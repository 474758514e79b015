"""`Joblib`: every fault costs one solve, and the numbers are those of `Serial`."""

import functools
import importlib
import os
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest

from zo_bilevel.solve.dispatch.base import Dispatcher, Solve, WithCost
from zo_bilevel.solve.dispatch.joblib import Joblib
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import InnerSolverError, InputError
from zo_bilevel.testing.faults import (
    Crashing,
    Hanging,
    HeavyTailedNoise,
    Leaking,
    NotANumber,
    Raising,
    Unpicklable,
)


def make_jobs(count: int, seed: int = 0) -> list[Job]:
    return [Job(k, {"a": float(k), "b": np.arange(3.0)}, seed) for k in range(count)]


def make_solver():
    def solver(phi, seed=None):
        noise = np.random.default_rng(seed).normal(size=5)
        return {"u": np.sin(phi["a"]) + noise, "flux": phi["b"].sum()}

    return solver


def content(outcomes):
    """What must not depend on where and when a solve ran."""
    return {
        index: (o.status, None if o.theta is None else o.theta.tobytes(), o.layout)
        for index, o in outcomes
    }


@pytest.fixture(scope="module")
def pool():
    with Joblib(n_jobs=2, timeout_s=2.0) as dispatcher:
        yield dispatcher


def run_one_bad(dispatcher, make_fault) -> Outcome:
    """Run 6 solves of which one is spoilt; the others must be as ever."""
    solver = make_solver()

    def spoilt(phi, seed=None):
        inner = make_fault(solver) if phi["a"] == 3 else solver
        return inner(phi, seed=seed)

    outcomes = dict(dispatcher.run(Solve(spoilt), make_jobs(6)))
    expected = content(Serial().run(Solve(solver), make_jobs(6)))
    bad = outcomes.pop(3)
    expected.pop(3)
    assert content(outcomes.items()) == expected
    return bad


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "killed by SIGSEGV"),
        ("abort", "killed by SIGABRT"),
        ("kill", "killed by SIGKILL (out of memory, often)"),
        ("exit", "exited with status 1"),
    ],
)
def test_a_crash_costs_one_solve(pool, how, words):
    bad = run_one_bad(pool, lambda inner: Crashing(inner, 1.0, how))
    assert bad.status == "crashed"
    assert words in bad.error


@pytest.mark.parametrize("how", ["sleep", "spin", "locked", "children"])
def test_a_hang_costs_one_solve_and_its_time_limit(how):
    with Joblib(n_jobs=2, timeout_s=1.0) as dispatcher:
        bad = run_one_bad(dispatcher, lambda inner: Hanging(inner, 1.0, how, 60))
        assert bad.status == "timed_out"
        assert bad.error == "killed after timeout_s=1"
        assert bad.seconds >= 1.0


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (lambda inner: Raising(inner, 1.0, "mesh"), "failed", "ArithmeticError: mesh"),
        (lambda inner: NotANumber(inner, 1.0), "invalid", "1 values that are not finite"),
        (lambda inner: Unpicklable(inner, 1.0), "invalid", "got lock"),
    ],
)
def test_a_bad_answer_costs_one_solve(pool, fault, status, words):
    bad = run_one_bad(pool, fault)
    assert bad.status == status
    assert words in bad.error


def test_exits_and_unprintable_exceptions_are_failed_solves(pool):
    class NastyError(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def solver(phi):
        if phi["a"] == 0:
            raise SystemExit(3)
        if phi["a"] == 1:
            raise NastyError
        if phi["a"] == 2:
            raise KeyboardInterrupt
        if phi["a"] == 3 and os.fork() == 0:
            raise ValueError("a forked child must not answer for its parent")
        return phi["a"]

    outcomes = dict(pool.run(Solve(solver), make_jobs(5)))
    assert [outcomes[k].status for k in range(5)] == ["failed", "failed", "failed", "ok", "ok"]
    assert "SystemExit: 3" in outcomes[0].error


def test_the_pool_goes_on_at_full_width_after_faults():
    def solver(phi):
        if phi["a"] < 4:
            os._exit(1)
        time.sleep(0.3)
        return time.time()

    with Joblib(n_jobs=2) as dispatcher:
        list(dispatcher.run(Solve(solver), make_jobs(4)))
        outcomes = dict(dispatcher.run(Solve(solver), make_jobs(8)))
        workers = {outcomes[k].worker for k in range(4, 8)}
    assert len(workers) == 2


def test_workers_live_on_between_rounds_and_solvers():
    with Joblib(n_jobs=1) as dispatcher:
        first = dict(dispatcher.run(Solve(lambda phi: phi["a"]), make_jobs(1)))[0]
        again = dict(dispatcher.run(Solve(lambda phi: -phi["a"] - 1), make_jobs(1)))[0]
        dispatcher.close()
        other = dict(dispatcher.run(Solve(lambda phi: phi["a"]), make_jobs(1)))[0]
    assert first.worker == again.worker != other.worker
    assert (first.theta.item(), again.theta.item()) == (0.0, -1.0)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_same_numbers_as_serial_at_any_number_of_workers(backend):
    solver = HeavyTailedNoise(Raising(NotANumber(make_solver(), 0.2), 0.2), scale=0.1)
    expected = content(Serial().run(Solve(solver), make_jobs(40, seed=7)))
    assert {status for status, *_ in expected.values()} == {"ok", "failed", "invalid"}
    for n_jobs in (1, 4):
        with Joblib(n_jobs=n_jobs, backend=backend) as dispatcher:
            assert content(dispatcher.run(Solve(solver), make_jobs(40, seed=7))) == expected


def test_retries_repeat_with_the_same_seed_and_add_up(tmp_path):
    def solver(phi, seed):
        marks = list(tmp_path.iterdir())
        (tmp_path / str(len(marks))).write_text(str(seed))
        time.sleep(0.05)
        if len(marks) == 0:
            os._exit(3)
        if len(marks) == 1:
            raise ValueError("try again")
        return WithCost(phi["a"], cost=2.0)

    with Joblib(n_jobs=1, retries=3) as dispatcher:
        outcome = dict(dispatcher.run(Solve(solver), make_jobs(1, seed=11)))[0]
    assert outcome.status == "ok"
    assert outcome.seconds >= 0.15
    assert [(tmp_path / str(k)).read_text() for k in range(3)] == ["11", "11", "11"]


def test_retries_run_out():
    solver = Crashing(make_solver(), 1.0, "exit")
    with Joblib(n_jobs=1, retries=1) as dispatcher:
        outcome = dict(dispatcher.run(Solve(solver), make_jobs(1)))[0]
    assert outcome.status == "crashed"
    assert outcome.error.endswith("(attempt 2)")


def test_a_leak_ends_in_a_crash_that_one_retry_mends():
    solver = Leaking(make_solver(), megabytes=40, limit_megabytes=100)
    expected = content(Serial().run(Solve(make_solver()), make_jobs(6)))
    with Joblib(n_jobs=1, retries=1) as dispatcher:
        assert content(dispatcher.run(Solve(solver), make_jobs(6))) == expected


def test_out_of_memory_in_python_is_a_failed_solve(pool):
    def solver(phi):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        return np.ones(2**30) if phi["a"] == 0 else phi["a"]

    with Joblib(n_jobs=1) as dispatcher:
        outcomes = dict(dispatcher.run(Solve(solver), make_jobs(2)))
    assert outcomes[0].status == "failed"
    assert "MemoryError" in outcomes[0].error
    assert outcomes[1].status == "ok"


def test_quorum_goes_on_without_the_stragglers():
    def solver(phi):
        time.sleep(86_400 if phi["a"] >= 6 else 0.01)
        return phi["a"]

    with Joblib(n_jobs=2, quorum=0.75) as dispatcher:
        list(dispatcher.run(Solve(solver), make_jobs(2)))
        outcomes = dict(dispatcher.run(Solve(solver), make_jobs(8)))
        statuses = [outcomes[k].status for k in range(8)]
        assert statuses == ["ok"] * 6 + ["timed_out"] * 2
        assert outcomes[7].error == "cancelled: quorum=0.75 of the round was reached"
        assert len(dict(dispatcher.run(Solve(solver), make_jobs(4)))) == 4


def test_the_clock_starts_after_the_import(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text(
        "import time\ntime.sleep(1.5)\ndef solver(phi):\n    return phi['a']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_to_import

    with Joblib(n_jobs=1, timeout_s=1.0) as dispatcher:
        outcome = dict(dispatcher.run(Solve(slow_to_import.solver), make_jobs(1)))[0]
    assert outcome.status == "ok"


def test_printing_from_python_and_c_does_not_disturb_the_answers(capfd):
    def solver(phi):
        import ctypes

        print("from Python")
        os.write(1, b"from C\n")
        os.write(2, b"to stderr\n")
        ctypes.CDLL(None).puts(b"through stdio")
        return phi["a"]

    with Joblib(n_jobs=1) as dispatcher:
        outcomes = dict(dispatcher.run(Solve(solver), make_jobs(3)))
    assert [outcomes[k].theta.item() for k in range(3)] == [0.0, 1.0, 2.0]
    assert "from C" in capfd.readouterr().out


def test_large_points_and_solutions_pass(pool):
    jobs = [Job(0, {"field": np.arange(2e5)}, 0)]
    outcome = dict(pool.run(Solve(lambda phi: np.tile(phi["field"], 5)), jobs))[0]
    assert outcome.theta.shape == (1_000_000,)
    assert outcome.theta[-1] == 2e5 - 1


def test_workers_have_one_thread_per_library_unless_told_otherwise(monkeypatch):
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")

    def solver(phi):
        return [float(os.environ[name]) for name in names]

    with Joblib(n_jobs=1) as dispatcher:
        outcome = dict(dispatcher.run(Solve(solver), make_jobs(1)))[0]
    assert outcome.theta.tolist() == [1.0, 3.0, 1.0]


def test_an_abandoned_round_stops_and_the_next_one_runs():
    def solver(phi):
        time.sleep(86_400 if phi["a"] > 0 else 0.01)
        return phi["a"]

    with Joblib(n_jobs=2) as dispatcher:
        answers = dispatcher.run(Solve(solver), make_jobs(4))
        assert next(answers)[0] == 0
        answers.close()
        assert dict(dispatcher.run(Solve(solver), make_jobs(1)))[0].status == "ok"


def test_an_empty_round_is_no_round(pool):
    assert list(pool.run(Solve(make_solver()), [])) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_jobs": 0}, "n_jobs must be a whole number > 0, or < 0 for all cores, got 0"),
        ({"n_jobs": 1.5}, "n_jobs must be a whole number"),
        ({"timeout_s": -1}, "timeout_s must be finite and > 0, got -1"),
        ({"timeout_s": 0}, "timeout_s must be finite and > 0, got 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be finite and > 0, got nan"),
        ({"retries": -2}, "retries must be a whole number >= 0, got -2"),
        ({"quorum": 0}, r"quorum must be in \(0, 1\], got 0"),
        ({"quorum": 1.5}, r"quorum must be in \(0, 1\], got 1.5"),
        ({"backend": "lokky"}, "unknown backend 'lokky'; did you mean 'loky'"),
        ({"backend": "multiprocessing"}, "unknown backend 'multiprocessing'"),
        ({"backend": "threading", "timeout_s": 5}, "timeout_s needs processes: a thread cannot"),
        ({"backend": "threading", "quorum": 0.5}, "quorum needs processes"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        Joblib(**options)


class Simulator:
    def __init__(self):
        self.settings = {"handles": [1, threading.Lock()]}

    def solve(self, phi):
        return phi["a"]


@pytest.mark.parametrize(
    ("inner", "where"),
    [
        (Simulator().solve, r"inner.__self__.settings\['handles'\]\[1\] is of type lock"),
        (functools.partial(print, threading.Lock()), "inner -> argument 0 is of type lock"),
    ],
)
def test_an_unpicklable_solver_is_refused_before_the_first_solve(inner, where):
    with Joblib(n_jobs=2) as dispatcher, pytest.raises(InputError, match=where) as caught:
        dispatcher.run(Solve(inner), make_jobs(2))
    assert "backend='threading'" in str(caught.value)
    assert "module-level function" in str(caught.value)


def test_a_solver_that_cannot_be_loaded_ends_the_round(tmp_path, monkeypatch):
    module = tmp_path / "only_here.py"
    module.write_text("def solver(phi):\n    return phi['a']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    module.unlink()
    with (
        Joblib(n_jobs=2) as dispatcher,
        pytest.raises(InnerSolverError, match="ModuleNotFoundError: No module named 'only_here'"),
    ):
        list(dispatcher.run(Solve(only_here.solver), make_jobs(4)))


def test_it_is_a_dispatcher_and_says_what_it_is():
    dispatcher = Joblib(n_jobs=3, timeout_s=2.5, retries=1, quorum=0.9)
    assert isinstance(dispatcher, Dispatcher)
    assert repr(dispatcher) == (
        "Joblib(n_jobs=3, backend='loky', timeout_s=2.5, retries=1, quorum=0.9)"
    )
    assert dispatcher.num_workers == 3
    assert Joblib().num_workers >= 1
    assert Joblib(n_jobs=-10_000).num_workers == 1


def test_threads_that_share_a_dispatcher_share_its_width():
    def solver(phi):
        begun = time.time()
        time.sleep(0.1)
        return [begun, time.time()]

    found = []
    with Joblib(n_jobs=2) as dispatcher:

        def run_round():
            found.extend(o for _, o in dispatcher.run(Solve(solver), make_jobs(6)))

        threads = [threading.Thread(target=run_round) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    spans = np.array([outcome.theta for outcome in found])
    assert len(spans) == 18
    at_once = [np.sum((spans[:, 0] <= begun) & (begun < spans[:, 1])) for begun in spans[:, 0]]
    assert max(at_once) <= 2


def test_a_failed_solve_may_have_cost_money(pool):
    def solver(phi):
        error = ConnectionError("rate limit")
        error.cost = 0.25
        raise error

    outcome = dict(pool.run(Solve(solver), make_jobs(1)))[0]
    assert (outcome.status, outcome.cost) == ("failed", 0.25)


def test_arguments_of_the_program_reach_the_solver(pool, monkeypatch):
    monkeypatch.setattr("sys.argv", ["program", "--size", "7"])

    def solver(phi):
        import sys

        return float(sys.argv[2])

    assert dict(pool.run(Solve(solver), make_jobs(1)))[0].theta.item() == 7.0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_of_the_program_leaves_its_parents_workers_alone():
    with Joblib(n_jobs=1) as dispatcher:
        solve = Solve(make_solver())
        before = dict(dispatcher.run(solve, make_jobs(1)))[0]
        child = os.fork()
        if child == 0:
            dispatcher.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        after = dict(dispatcher.run(solve, make_jobs(1)))[0]
    assert before.worker == after.worker


def test_a_value_of_a_module_that_was_changed_after_its_import_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = "import time\nC = 1.0\nOTHER, SEEN, calls = (1, 'a'), {}, 0\n"
    text += "def answer(phi):\n    global calls\n    calls += 1\n"
    text += "    return C * phi['a'] + OTHER[0] + len(SEEN)\n"
    (tmp_path / "own_constants.py").write_text(text)
    own = importlib.import_module("own_constants")

    def through_the_module(phi):
        return own.C * phi["a"]

    def imported_inside(phi):
        import own_constants

        return own_constants.C * phi["a"]

    own.calls = 5  # what is only counted decides nothing
    try:
        with Joblib(n_jobs=1) as dispatcher:
            for solver in (through_the_module, imported_inside, own.answer):
                dict(dispatcher.run(Solve(solver), make_jobs(2)))
                own.C = 2.0
                with pytest.raises(InputError, match=r"own_constants\.C has another value in a"):
                    dict(dispatcher.run(Solve(solver), make_jobs(2)))
                own.C = 1.0
            own.C = 2.0
            cloudpickle.register_pickle_by_value(own)
            outcomes = dict(dispatcher.run(Solve(through_the_module), make_jobs(2)))
            assert outcomes[1].theta == pytest.approx(2.0)
            cloudpickle.unregister_pickle_by_value(own)
    finally:
        del sys.modules["own_constants"]
