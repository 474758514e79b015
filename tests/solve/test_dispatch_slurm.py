"""Solves as jobs: submitit's stand-ins for a cluster here, and a real Slurm where it can start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack

import psutil
import pytest

import zo_bilevel as zb
from zo_bilevel.solve.dispatch import slurm_jobs
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.process_tree import descendants
from zo_bilevel.testing import check_dispatcher

pytest.importorskip("submitit", reason="needs the extra slurm")

PROGRAM = """
    import os, sys, time
    import numpy as np
    import zo_bilevel as zb

    def simulate(phi):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write("x")
        time.sleep(float(os.environ["SLEEP"]))
        return phi["a"] * np.arange(1.0, 4.0)

    space = zb.Space(a=zb.Real(0, 4))
    problem = zb.Problem(space, simulate, zb.SquaredError([2.0, 4.0, 6.0]), name="p")

    def minimize(dispatcher, **options):
        return zb.minimize(problem, max_solves=6, dispatcher=dispatcher, round_width=2,
                           initial={"a": 0.5}, **options)

    if __name__ == "__main__":
        minimize(zb.Slurm("jobs", cluster=sys.argv[1], timeout_min=60), store="runs.sqlite")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("SLEEP", "0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "program", raising=False)
    return tmp_path


def calls(folder):
    return len((folder / "calls").read_text())


def wait_for_calls(folder, count):
    while not (folder / "calls").exists() or calls(folder) < count:
        time.sleep(0.05)


def losses(result):
    return [record.loss for record in result.history], result.theta.tobytes()


def crashing(phi):
    if phi["a"] == 1.0:
        os.kill(os.getpid(), signal.SIGSEGV)
    if phi["a"] == 2.0:
        raise RuntimeError("too hot")
    return phi["a"]


@pytest.mark.slow
def test_it_keeps_the_promises_of_a_dispatcher(tmp_path):
    check_dispatcher(zb.Slurm(tmp_path, cluster="debug"))


def test_without_rounds_each_solve_is_a_job(tmp_path):
    problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), lambda phi: phi["a"], name="p")
    options = {"max_solves": 5, "round_width": 2, "asynchronous": True}
    here = zb.minimize(problem, zb.RandomSearch(), **options)
    with zb.Slurm(tmp_path, cluster="debug") as dispatcher:
        jobs = zb.minimize(problem, zb.RandomSearch(), dispatcher=dispatcher, **options)
    assert [r.loss for r in jobs.history] == [r.loss for r in here.history]


def test_failures_are_values_and_good_solves_leave_nothing_behind(tmp_path):
    jobs = [Job(k, {"a": float(k)}, 0) for k in range(3)]
    with zb.Slurm(tmp_path, cluster="local") as dispatcher:
        found = dict(dispatcher.run(Solve(crashing), jobs))
    assert [found[k].status for k in range(3)] == ["ok", "crashed", "failed"]
    assert found[0].theta.item() == 0.0
    assert "too hot" in found[2].error
    assert list((tmp_path / "waiting").iterdir()) == []
    assert not list(tmp_path.glob("*_result.pkl"))


@pytest.mark.slow
def test_jobs_of_a_killed_run_are_collected_by_the_next(folder, monkeypatch):
    from program import minimize

    quiet = minimize(None)
    before = calls(folder)
    monkeypatch.setenv("SLEEP", "1.0")
    run = subprocess.Popen([sys.executable, "program.py", "local"])
    wait_for_calls(folder, before + 2)
    run.kill()
    run.wait()
    monkeypatch.setenv("SLEEP", "0")
    resumed = minimize(zb.Slurm("jobs", cluster="local"), store="runs.sqlite")
    assert losses(resumed) == losses(quiet)
    assert calls(folder) - before == quiet.solves


def test_a_preempted_job_is_queued_again(folder, monkeypatch):
    from program import simulate

    monkeypatch.setenv("SLEEP", "2.0")
    dispatcher = zb.Slurm("jobs", cluster="local", timeout_min=60)
    answers = dispatcher.run(Solve(simulate, name="p"), [Job(0, {"a": 1.0}, 0)])
    submitted = []
    note = slurm_jobs.AskedSolve.note

    def noting(self, job):
        submitted.append(job)
        note(self, job)
        wait_for_calls(folder, 1)
        (task,) = (
            process
            for process in psutil.Process(job._process.pid).children()
            if "submitit.core._submit" in process.cmdline()
        )
        task.send_signal(signal.SIGUSR2)

    monkeypatch.setattr(slurm_jobs.AskedSolve, "note", noting)
    ((_, outcome),) = answers
    assert outcome.theta.tolist() == [1.0, 2.0, 3.0]
    assert (len(submitted), calls(folder)) == (1, 2)


@pytest.mark.slow
def test_a_job_that_the_queue_loses_is_submitted_anew_and_not_for_ever(folder, monkeypatch):
    from program import simulate

    monkeypatch.setenv("SLEEP", "60")
    monkeypatch.setattr(slurm_jobs, "LATE_RESULT_S", 0.1)
    monkeypatch.setattr(slurm_jobs, "MOST_SUBMISSIONS", 2)
    note = slurm_jobs.AskedSolve.note

    def noting(self, job):
        note(self, job)
        wait_for_calls(folder, 1)
        for process in [job._process.pid, *descendants(job._process.pid)]:
            os.kill(process, signal.SIGKILL)
        (folder / "calls").unlink()

    monkeypatch.setattr(slurm_jobs.AskedSolve, "note", noting)
    ((_, outcome),) = zb.Slurm("jobs", cluster="local").run(
        Solve(simulate, name="p"), [Job(0, {"a": 1.0}, 0)]
    )
    assert outcome.status == "crashed"
    assert outcome.error.startswith("the queue lost it 2 times")


def test_time_that_is_over_cancels_jobs(folder, monkeypatch):
    from program import simulate

    monkeypatch.setenv("SLEEP", "60")
    cancelled = []
    cancel = slurm_jobs.AskedSolve.cancel
    monkeypatch.setattr(
        slurm_jobs.AskedSolve,
        "cancel",
        lambda self: cancelled.append(self.submitted) or cancel(self),
    )
    dispatcher, jobs = zb.Slurm("jobs", cluster="local"), [Job(0, {"a": 1.0}, 0)]
    assert list(dispatcher.run_within(Solve(simulate, name="p"), jobs, 0.1)) == []
    (job,) = cancelled
    assert job._process.wait(20) != 0


def test_bad_input_is_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(zb.InputError, match="unknown cluster 'slrm'"):
        zb.Slurm(tmp_path, cluster="slrm")
    with pytest.raises(zb.InputError, match=r"Slurm refuses \{'timeout': 3\}"):
        zb.Slurm(tmp_path, cluster="local", timeout=3)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(zb.InputError, match="Could not detect"):
        zb.Slurm(tmp_path)


def test_a_queue_that_refuses_jobs_is_named_with_its_words(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "sbatch"):
        (programs / name).write_text(
            "#!/bin/sh\necho 'sbatch: error: no such partition' >&2\nexit 1"
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    dispatcher = zb.Slurm(tmp_path / "jobs", slurm_partition="nowhere")
    with pytest.raises(zb.InputError, match=r"slurm refused 1 jobs: .*no such partition"):
        list(dispatcher.run(Solve(crashing), [Job(0, {"a": 0.0}, 0)]))


CONFIGURATION = """
    ClusterName=test
    SlurmctldHost={host}(127.0.0.1)
    SlurmctldPort={ports[0]}
    SlurmdPort={ports[1]}
    AuthInfo=socket={folder}/munge.sock
    CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
    ProctrackType=proctrack/linuxproc
    TaskPlugin=task/none
    SlurmUser=root
    SlurmdUser=root
    SlurmdParameters=config_overrides
    StateSaveLocation={folder}/state
    SlurmdSpoolDir={folder}/spool
    SlurmctldPidFile={folder}/slurmctld.pid
    SlurmdPidFile={folder}/slurmd.pid
    MailProg=/bin/true
    ReturnToService=2
    NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
    PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count):
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


@pytest.fixture
def real_slurm(folder, monkeypatch):
    """A cluster of one node on loopback, where Debian's slurmctld, slurmd and munge are there."""
    if os.getuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))):
        pytest.skip("no Slurm is installed")
    (folder / "spool").mkdir()
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    names = {"host": socket.gethostname().partition(".")[0], "ports": free_ports(2)}
    text = textwrap.dedent(CONFIGURATION).format(folder=folder, **names)
    (folder / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    files = ("--key-file", "key", "--socket", "munge.sock", "--pid-file", "munge.pid")
    files += ("--log-file", "munge.log", "--seed-file", "seed")
    words = [f"{folder}/{file}" if place % 2 else file for place, file in enumerate(files)]
    with ExitStack() as stack:
        for command in (["munged", "-F", "-f", *words], ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = stack.enter_context(open(folder / f"{command[0]}.out", "w"))
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            time.sleep(1.0)
        for _ in range(100):
            asked = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True)
            if asked.stdout.strip() == "idle":
                break
            time.sleep(0.2)
        else:
            pytest.skip(f"Slurm does not start here: {asked.stdout}{asked.stderr}")
        yield
        for _ in range(100):
            if not subprocess.run(["squeue", "-h"], capture_output=True).stdout:
                break
            time.sleep(0.2)


@pytest.mark.slow
def test_a_real_slurm_runs_arrays_and_keeps_the_jobs_of_a_killed_run(
    real_slurm, folder, monkeypatch
):
    from program import minimize

    quiet = minimize(None)
    assert losses(minimize(zb.Slurm("quick", timeout_min=60))) == losses(quiet)
    before = calls(folder)
    monkeypatch.setenv("SLEEP", "3.0")
    run = subprocess.Popen([sys.executable, "program.py", "slurm"])
    wait_for_calls(folder, before + 2)
    run.kill()
    run.wait()
    monkeypatch.setenv("SLEEP", "0")
    resumed = minimize(zb.Slurm("jobs", timeout_min=60), store="runs.sqlite")
    assert losses(resumed) == losses(quiet)
    assert calls(folder) - before == quiet.solves
    with pytest.raises(zb.InputError, match=r"slurm refused 1 jobs: .*invalid partition"):
        minimize(zb.Slurm("jobs", slurm_partition="nowhere"))
