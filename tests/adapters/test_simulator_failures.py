"""Real simulators that fail: each failure costs one solve and says where to look."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
from command_programs import PROGRAMS
from one_round import evaluate
from processes import running, until

import zo_bilevel as zb
from zo_bilevel.adapters import CommandLine, Function, ReadPattern
from zo_bilevel.solve.dispatch.joblib import Joblib
from zo_bilevel.support.errors import (
    SolveError,
)

pytestmark = pytest.mark.usefixtures("own_temporary_folder")


needs_ngspice = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed"
)


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
