"""How programs and simulators fail: each failure costs one solve and says where to look."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest

import zo_bilevel as zb
from zo_bilevel.adapters import CommandLine, Function, ReadPattern
from zo_bilevel.adapters.command_line import process, workspace
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.dispatch.joblib import Joblib
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.support import solve_folders
from zo_bilevel.support.errors import (
    InputError,
    SolveCrashError,
    SolveError,
    SolveTimeoutError,
)

PROGRAMS = Path(__file__).parents[1] / "programs"
HANG = str(PROGRAMS / "hang_with_children.sh")
needs_ngspice = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed"
)


@pytest.fixture(autouse=True)
def _temporary_files_go_with_the_test(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def running(word: str) -> list[int]:
    """Processes with this word among their arguments."""
    found = []
    for candidate in psutil.process_iter(["cmdline", "status"]):
        is_alive = candidate.info["status"] != psutil.STATUS_ZOMBIE
        if is_alive and word in (candidate.info["cmdline"] or ()):
            found.append(candidate.pid)
    return found


def until(condition, limit_s: float = 5.0) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def evaluate(problem, *values, dispatcher=None):
    """Evaluations of one round, one point a value of each parameter."""
    evaluator = Evaluator(problem, dispatcher or Serial(), 0)
    points = [Point(problem.space.encode(phi)) for phi in values]
    return evaluator.evaluate(points)


# -- hangs ---------------------------------------------------------------------------------------


def test_a_hang_is_killed_with_its_grandchildren_in_other_sessions_too():
    marker = "86411.25"
    solver = CommandLine([HANG, "{seconds}"], timeout_s=0.4, keep_failures=0)
    started = time.perf_counter()
    with pytest.raises(SolveTimeoutError, match=r"was killed after timeout_s=0\.4"):
        solver({"seconds": float(marker)})
    assert time.perf_counter() - started < 60.0  # the program itself would run for a day
    assert until(lambda: not running(marker))


def test_children_of_a_program_that_ended_do_not_stay():
    marker = "86412.25"
    solver = CommandLine(["sh", "-c", 'sleep "$1" > /dev/null & echo 1', "sh", marker])
    np.testing.assert_array_equal(solver({}), [1.0])
    assert until(lambda: not running(marker))


SOLVE_IN_A_PROCESS = """
import sys
from zo_bilevel.adapters import CommandLine
CommandLine([sys.argv[1], "{s}"], timeout_s=60, folder=sys.argv[3])({"s": float(sys.argv[2])})
"""


def test_programs_die_with_a_process_that_is_killed_from_outside(tmp_path):
    marker = "86413.25"
    arguments = [sys.executable, "-c", SOLVE_IN_A_PROCESS, HANG, marker, str(tmp_path)]
    owner = subprocess.Popen(arguments)
    try:
        # the owner itself, the script, three sleeps
        assert until(lambda: len(running(marker)) >= 5, 20)
    finally:
        owner.kill()
        owner.wait()
    in_sessions_of_their_own = until(lambda: not running(marker))
    assert in_sessions_of_their_own, running(marker)


def test_directories_of_killed_processes_are_swept_later(tmp_path):
    abandoned, recent = (tmp_path / f"{solve_folders.PREFIX}{name}" for name in ("old", "new"))
    for path in (abandoned, recent):
        (path / "work").mkdir(parents=True)
    os.utime(abandoned, (0, 0))
    with workspace.Workspace(tmp_path, 0).folder() as in_use:
        assert not abandoned.exists()
        assert recent.exists()
        os.utime(in_use.path, (0, 0))
        solve_folders.sweep(tmp_path)
        assert in_use.work.is_dir()


def test_the_helper_is_replaced_when_somebody_kills_it():
    solver = CommandLine(["echo", "{a}"])
    solver({"a": 1.0})
    helper = process.LIFELINE._helper
    helper.kill()
    helper.wait()
    np.testing.assert_array_equal(solver({"a": 2.0}), [2.0])
    np.testing.assert_array_equal(solver({"a": 3.0}), [3.0])
    assert process.LIFELINE._helper.pid != helper.pid


# -- crashes and refusals ------------------------------------------------------------------------


def test_sigabrt_of_a_program_is_a_crash_by_name():
    solver = CommandLine([sys.executable, str(PROGRAMS / "abort.py")], keep_failures=0)
    with pytest.raises(SolveCrashError, match="was killed by SIGABRT after"):
        solver({})


def test_a_program_that_cannot_be_started_is_one_failed_solve(tmp_path):
    script = tmp_path / "solve.sh"
    script.write_text("#!/bin/sh\necho $1\n")
    script.chmod(0o755)
    solver = CommandLine([script, "{a}"], keep_failures=0)
    solver({"a": 1.0})
    with pytest.raises(SolveError, match=r"could not be started: .*Argument list too long"):
        solver({"a": np.zeros(200_000)})
    script.unlink()
    with pytest.raises(SolveError, match=r"solve\.sh is not on the PATH"):
        solver({"a": 1.0})


def test_success_can_depend_on_what_is_printed():
    options = {"required_output": "CONVERGED", "forbidden_output": "(?i)warning"}
    solver = CommandLine(["sh", "-c", "echo 1; echo {text} >&2"], keep_failures=0, **options)
    with pytest.raises(SolveError, match=r"exited with status 0 .* did not print 'CONVERGED'"):
        solver({"text": "x"})
    with pytest.raises(SolveError, match=r"exited with status 0 .* but printed '.*warning'"):
        solver({"text": "CONVERGED Warning"})
    np.testing.assert_array_equal(solver({"text": "CONVERGED"}), [1.0])
    odd = CommandLine(["sh", "-c", "echo 5; exit 7"], success_statuses=[7])
    np.testing.assert_array_equal(odd({}), [5.0])


# -- what is kept --------------------------------------------------------------------------------


def test_failures_are_kept_up_to_a_limit_and_can_be_repeated_by_hand(tmp_path):
    command = ["sh", "-c", 'cat in.txt; cat; echo "$1|$OMP_NUM_THREADS"; exit 3', "sh", "{a}"]
    solver = CommandLine(
        command,
        files={"in.txt": "a={{ a }} "},
        standard_input="from stdin ",
        folder=tmp_path,
        keep_failures=2,
    )
    messages = []
    for _ in range(4):
        with pytest.raises(SolveError, match="exited with status 3") as caught:
            solver({"a": "it's $HOME; `x`"})
        messages.append(str(caught.value))
    kept = [re.search(r"sh (\S+repeat\.sh)$", message) for message in messages]
    assert [match is not None for match in kept] == [True, True, False, False]
    assert len(list(tmp_path.glob("zo-bilevel-failed-*/*"))) == 2
    assert all(not list(path.iterdir()) for path in tmp_path.glob("zo-bilevel-solve-*/work"))
    script = Path(kept[0].group(1))
    again = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert again.returncode == 3
    assert again.stdout == (script.parent / "stdout.txt").read_text()
    assert again.stdout == "a=it's $HOME; `x` from stdin it's $HOME; `x`|1\n"


def test_values_of_the_environment_appear_in_no_message_and_no_kept_log(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "inherited-k3y")
    code = 'echo "$MINE"; echo "$SOME_API_KEY" >&2; printf "%0100000d" 0; echo "$MINE"; exit 1'
    solver = CommandLine(["sh", "-c", code], environment={"MINE": "given-s3cret"}, folder=tmp_path)
    with pytest.raises(SolveError, match=r"it said: \*\*\*") as caught:
        solver({})
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) == 4
    for text in [str(caught.value), repr(solver), *texts]:
        assert "s3cret" not in text
        assert "k3y" not in text
    script = next(tmp_path.rglob("repeat.sh"))
    unset = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert "MINE: set it" in unset.stderr
    with pytest.raises(InputError, match="MINE must be text") as caught:
        CommandLine(["x"], environment={"MINE": "given-s3cret\0"})
    assert "s3cret" not in str(caught.value)


# -- the three kinds of invalid, and names in messages -------------------------------------------


def answer(kind: float) -> np.ndarray:
    theta = {0: [1.0, 2.0], 1: [1.0, np.nan], 2: [1.0], 3: [-9e6, 0.0]}
    return np.array(theta[int(kind)])


SPACE = zb.Space(kind=zb.Integer(0, 3))


def test_not_finite_wrong_shape_and_rejected_are_three_statuses_with_values_in_the_message():
    problem = zb.Problem(
        SPACE, Function(answer), zb.SquaredError([1.0, 2.0]), valid=lambda t, phi: t.min() > -1e6
    )
    got = evaluate(problem, *({"kind": k} for k in range(4)))
    assert [e.status for e in got] == ["ok", "invalid", "wrong_shape", "rejected"]
    assert [e.is_invalid for e in got] == [False, True, True, True]
    for k in (1, 2, 3):
        assert f"(at kind={k})" in got[k].error
        assert got[k].theta is None
        assert got[k].loss == np.inf
    assert "shape (1,), but shape (2,) before" in got[2].error


def test_a_first_solve_that_is_rejected_or_unusable_is_a_failed_solve():
    outer = zb.SquaredError([1.0, 2.0])
    absurd = zb.Problem(SPACE, Function(answer), outer, valid=lambda t, phi: bool(t.min() > -1e6))
    assert [e.status for e in evaluate(absurd, {"kind": 3}, {"kind": 0})] == ["rejected", "ok"]
    (bad,) = evaluate(zb.Problem(SPACE, Function(answer), outer), {"kind": 1})
    assert bad.status == "invalid"
    assert re.search(r"shape \(2,\) has 1 values .* \(at kind=1\)", bad.error)
    (short,) = evaluate(zb.Problem(SPACE, Function(answer), expected_length=2), {"kind": 2})
    assert short.status == "wrong_shape"
    assert re.search(r"shape \(1,\), expected_length is 2 \(at kind", short.error)


def test_a_first_answer_of_the_wrong_length_does_not_become_the_rule():
    short = zb.Problem(SPACE, Function(answer), lambda t, phi: float(t.sum()), expected_length=2)
    evaluator = Evaluator(short, Serial(), 0)
    failing = zb.Problem(SPACE, Function(lambda kind: 1 / 0), expected_length=2)
    assert evaluate(failing, {"kind": 0})[0].status == "failed"
    got = evaluator.evaluate([Point(SPACE.encode({"kind": k})) for k in (0, 2, 0)])
    assert [e.status for e in got] == ["ok", "wrong_shape", "ok"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": 3}, "valid must be callable, got int"),
        ({"expected_length": 0}, "expected_length must be a whole number >= 1, got 0"),
        ({"expected_length": True}, "expected_length must be a whole number >= 1, got True"),
    ],
)
def test_bad_rules_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        zb.Problem(SPACE, Function(answer), **options)


def test_a_rule_that_does_not_work_says_so():
    outer = zb.SquaredError([1.0, 2.0])
    with pytest.raises(InputError, match="valid raised KeyError: 'u'"):
        evaluate(
            zb.Problem(SPACE, Function(answer), outer, valid=lambda t, phi: phi["u"]), {"kind": 0}
        )
    with pytest.raises(InputError, match="must return True or False, got None"):
        evaluate(zb.Problem(SPACE, Function(answer), outer, valid=lambda t, phi: None), {"kind": 0})
    later = zb.Problem(SPACE, Function(answer), outer, valid=lambda t, phi: 1 / t[1] > 0)
    got = evaluate(later, {"kind": 0}, {"kind": 3})
    assert got[1].status == "rejected"
    assert "valid raised ZeroDivision" in got[1].error or "divide by zero" in got[1].error


# -- real simulators -----------------------------------------------------------------------------

RING = {"files": {"ring.cir": PROGRAMS / "ring.cir.j2"}, "keep_failures": 0}
RING_SPACE = zb.Space(load=zb.Log(1e-15, 1e-10), supply=zb.Real(1, 2), width=zb.Real(1, 5))


@needs_ngspice
def test_ngspice_amplifier_gives_its_frequency_response():
    gains = ReadPattern(r"^\d+\s+\S+\s+(\S+)\s*$")
    files = {"amplifier.cir": PROGRAMS / "amplifier.cir.j2"}
    solver = CommandLine(["ngspice", "-b", "amplifier.cir"], files=files, output=gains)
    space = zb.Space({name: zb.Real(2, 6) for name in ("rb1", "rb2", "rc", "re")})
    problem = zb.Problem(space, solver, zb.SquaredError(np.full(26, 11.4)), expected_length=26)
    phi = {"rb1": 4.7, "rb2": 4.0, "rc": 3.6, "re": 3.0}
    first, second = evaluate(problem, phi, phi)
    assert first.status == "ok"
    assert first.loss < 0.01
    np.testing.assert_array_equal(first.theta, second.theta)
    with pytest.raises(SolveError, match="ngspice"):
        CommandLine(["ngspice", "-b", "amplifier.cir"], files=files, keep_failures=0)(
            {**phi, "rc": float("nan")}
        )


@needs_ngspice
def test_ngspice_exit_status_0_without_an_answer_is_a_failed_solve():
    reader = ReadPattern(r"^period\s*=\s*(\S+)")
    problem = zb.Problem(
        RING_SPACE, CommandLine(["ngspice", "-b", "ring.cir"], output=reader, **RING)
    )
    good = {"load": 1e-14, "supply": 1.8, "width": 2.0}
    ok, failed = evaluate(problem, good, {**good, "load": 1e-11})
    assert ok.status == "ok"
    assert 1e-11 < ok.loss < 1e-9
    assert failed.status == "failed"
    assert "no match of" in failed.error
    assert "load=1e-11" in failed.error
    rule = CommandLine(["ngspice", "-b", "ring.cir"], forbidden_output="meas.*failed", **RING)
    with pytest.raises(SolveError, match=r"exited with status 0 .* but printed 'meas"):
        rule({**good, "load": 1e-11})


@needs_ngspice
def test_ngspice_hanging_in_a_process_that_is_killed_leaves_no_ngspice(tmp_path):
    files = {"hang-for-test.cir": PROGRAMS / "hang.cir.j2"}
    solver = CommandLine(["ngspice", "-b", "hang-for-test.cir"], files=files, folder=tmp_path)
    problem = zb.Problem(zb.Space(step=zb.Log(1e-13, 1e-3)), solver, zb.SquaredError(0.0))
    with Joblib(n_jobs=1, timeout_s=1.5) as dispatcher:
        (got,) = evaluate(problem, {"step": 1e-12}, dispatcher=dispatcher)
    assert got.status == "timed_out"
    assert until(lambda: not running("hang-for-test.cir"))


def throw(friction: float) -> float:
    import pymunk

    space = pymunk.Space()
    space.gravity = (0, -10)
    ball, ground = pymunk.Body(1, 1), pymunk.Segment(space.static_body, (-50, 0), (50, 0), 1)
    shape = pymunk.Circle(ball, 0.5)
    ground.friction, shape.friction = 0.5, friction
    ball.position, ball.velocity = (0, 3), (5, 0)
    space.add(ball, shape, ground)
    for _ in range(60):
        space.step(0.02)
    return float(ball.position.x)


def test_sigabrt_inside_a_python_simulator_costs_one_solve():
    pytest.importorskip("pymunk", reason="pymunk is not installed")
    problem = zb.Problem(zb.Space(friction=zb.Real(-1, 1)), Function(throw))
    points = [{"friction": f} for f in (0.3, -1.0, 0.6)]
    with Joblib(n_jobs=2, timeout_s=60) as dispatcher:
        got = evaluate(problem, *points, dispatcher=dispatcher)
    assert [e.status for e in got] == ["ok", "crashed", "ok"]
    assert "SIGABRT" in got[1].error
    assert "friction=-1)" in got[1].error


def queue(arrival: float) -> float:
    import simpy

    waits = []

    def customer(env, server):
        came = env.now
        with server.request() as turn:
            yield turn
            waits.append(env.now - came)
            yield env.timeout(1.0)

    def source(env, server):
        while env.now < 50:
            env.process(customer(env, server))
            yield env.timeout(arrival)

    env = simpy.Environment()
    env.process(source(env, simpy.Resource(env, 1)))
    env.run(until=100)
    return float(np.mean(waits))


def test_a_simulator_that_loops_for_ever_costs_one_solve():
    pytest.importorskip("simpy", reason="simpy is not installed")
    problem = zb.Problem(zb.Space(arrival=zb.Real(0, 4)), Function(queue))
    with Joblib(n_jobs=2, timeout_s=2.0) as dispatcher:
        evaluate(problem, {"arrival": 2.0}, {"arrival": 3.0}, dispatcher=dispatcher)
        got = evaluate(problem, {"arrival": 2.0}, {"arrival": 0.0}, dispatcher=dispatcher)
    assert [e.status for e in got] == ["ok", "timed_out"]


def pressures(roughness: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wntr

        network = wntr.network.WaterNetworkModel("Net3")
        for name in network.pipe_name_list:
            pipe = network.get_link(name)
            pipe.roughness = pipe.roughness * roughness
        network.options.time.duration = 0
        nodes = wntr.sim.EpanetSimulator(network).run_sim().node
    return nodes["pressure"].loc[0, network.junction_name_list].to_numpy()


def test_epanet_absurd_pressures_are_rejected_and_its_error_is_a_failed_solve(
    tmp_path, monkeypatch
):
    pytest.importorskip("wntr", reason="wntr is not installed")
    monkeypatch.chdir(tmp_path)  # it leaves files where it fails
    problem = zb.Problem(
        zb.Space(roughness=zb.Log(1e-12, 10.0)),
        Function(pressures),
        zb.SquaredError(np.full(92, 50.0)),
        valid=lambda theta, phi: theta.min() > -1e3,
    )
    values = [{"roughness": r} for r in (1.0, 1e-3, 1e-11)]
    good, absurd, failed = evaluate(problem, *values)
    assert [e.status for e in (good, absurd, failed)] == ["ok", "rejected", "failed"]
    assert "(at roughness=0.001" in absurd.error
    assert "110" in failed.error
    assert "e-11)" in failed.error


def test_ctrl_c_ends_the_program():
    marker = "86414.25"
    code = SOLVE_IN_A_PROCESS + "\n"
    arguments = [sys.executable, "-c", code, HANG, marker, "/tmp"]
    owner = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: len(running(marker)) >= 5, 20)
        owner.send_signal(signal.SIGINT)
        assert owner.wait(5) != 0
    finally:
        owner.kill()
        owner.wait()
    assert until(lambda: not running(marker))
