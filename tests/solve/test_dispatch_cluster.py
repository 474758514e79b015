"""A real local Dask cluster and a real local Ray give the numbers of `Serial`.

Each runs in a program of its own: both leave threads and changed classes behind in the process
that starts them.
"""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import pytest

from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.dispatch.joblib import Joblib
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.errors import InputError, MissingPackageError

PROGRAM = """
    import json, os, re, sys, time
    from pathlib import Path
    import numpy as np
    from zo_bilevel.solve.dispatch.base import Solve
    from zo_bilevel.support.process_tree import descendants
    from zo_bilevel.solve.dispatch.joblib import Joblib
    from zo_bilevel.solve.dispatch.serial import Serial
    from zo_bilevel.solve.evaluation import Job
    from zo_bilevel.testing.faults import Crashing, Hanging, HeavyTailedNoise

    def solver(phi, seed=None):
        return phi["a"] + np.random.default_rng(seed).normal(size=3)

    def open_to_the_network():
        pids = [os.getpid(), *descendants(os.getpid())]
        owned = set()
        for pid in pids:
            for link in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    owned.add(os.readlink(link))
                except OSError:
                    continue
        found = []
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                address, state, inode = (line.split()[k] for k in (1, 3, 9))
                host = address.rpartition(":")[0]
                loopback = host in ("0100007F", "0" * 16 + "FFFF00000100007F")
                if state == "0A" and not loopback and f"socket:[{inode}]" in owned:
                    found.append(address)
        return found

    def content(outcomes):
        return sorted((k, o.status, o.theta is not None and o.theta.tolist()) for k, o in outcomes)

    def solvers_left():
        return sum(b"processes.guard" in Path(f"/proc/{pid}/cmdline").read_bytes()
                   for pid in descendants(os.getpid()))

    def main(backend, is_quick):
        jobs = [Job(k, {"a": float(k)}, k % 3) for k in range(20)]
        noisy = HeavyTailedNoise(solver, 0.1)
        faulty = Crashing(Hanging(noisy, 0.1), 0.15)
        report = {"open": open_to_the_network()}
        report["serial"] = content(Serial().run(Solve(noisy), jobs))
        if is_quick:
            with Joblib(n_jobs=2, backend=backend) as dispatcher:
                report["num_workers"] = dispatcher.num_workers
                report["clean"] = content(dispatcher.run(Solve(noisy), jobs))
                stream = dispatcher.stream(Solve(noisy))
                for job in jobs:
                    stream.submit(job)
                report["one by one"] = content([stream.next(60.0) for _ in jobs])
                stream.close()
                stream = dispatcher.stream(Solve(lambda phi: time.sleep(86_400)))
                stream.submit(jobs[0])
                assert stream.next(0.5) is None
                stream.close()  # kills it: the workers are free for the next
                report["again"] = content(dispatcher.run(Solve(noisy), jobs))
            print(json.dumps(report))
            return
        with Joblib(n_jobs=2, timeout_s=1.5) as dispatcher:
            report["loky"] = content(dispatcher.run(Solve(faulty), jobs))
        with Joblib(n_jobs=2, backend=backend) as dispatcher:
            report["num_workers"] = dispatcher.num_workers
            report["clean"] = content(dispatcher.run(Solve(noisy), jobs))
            # twice the same point: a cluster must not answer from a cache
            twins = [Job(k, {"a": 0.0}, 0) for k in range(2)]
            clock = Solve(lambda phi: time.perf_counter_ns() % 1e12)
            report["twins"] = content(dispatcher.run(clock, twins))
        with Joblib(n_jobs=2, backend=backend, timeout_s=1.5, retries=1) as dispatcher:
            report["faulty"] = content(dispatcher.run(Solve(faulty), jobs))
        slow = Solve(lambda phi: time.sleep(0.01 if phi["a"] < 8 else 86_400))
        with Joblib(n_jobs=2, backend=backend, quorum=0.4) as dispatcher:
            report["quorum"] = content(dispatcher.run(slow, jobs))
        for _ in range(100):
            report["left"] = solvers_left()
            if not report["left"]:
                break
            time.sleep(0.05)
        print(json.dumps(report))
"""
DASK = """
    if __name__ == "__main__":
        from dask.distributed import Client, LocalCluster

        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        )
        with cluster, Client(cluster):
            main("dask", sys.argv[1] == "quick")
"""
RAY = """
    if __name__ == "__main__":
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # without this Ray turns 127.0.0.1 into the machine's address, and listens there
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        import ray

        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1",
                 log_to_driver=False, logging_level="ERROR")
        main("ray", sys.argv[1] == "quick")
        ray.shutdown()
"""


CLUSTERS = pytest.mark.parametrize(
    ("package", "start"), [("distributed", DASK), ("ray", RAY)], ids=["dask", "ray"]
)


def run_program(tmp_path, package, start, extent):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    script = tmp_path / "cluster_program.py"
    script.write_text(textwrap.dedent(PROGRAM) + textwrap.dedent(start))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script), extent],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@CLUSTERS
def test_a_local_cluster_gives_the_numbers_of_serial(tmp_path, package, start):
    report = run_program(tmp_path, package, start, "quick")
    assert report["open"] == []  # listens on the loopback interface only
    assert report["num_workers"] == 2
    assert report["clean"] == report["one by one"] == report["again"] == report["serial"]


@pytest.mark.slow
@CLUSTERS
def test_a_local_cluster_survives_faults_and_stragglers(tmp_path, package, start):
    report = run_program(tmp_path, package, start, "all")
    assert report["open"] == []  # listens on the loopback interface only
    assert report["num_workers"] == 2
    assert report["clean"] == report["serial"]
    assert report["twins"][0][2] != report["twins"][1][2]
    assert report["faulty"] == report["loky"]
    assert {status for _, status, _ in report["faulty"]} == {"ok", "crashed", "timed_out"}
    cancelled = [k for k, status, _ in report["quorum"] if status == "timed_out"]
    assert len(cancelled) == 12
    assert report["left"] == 0


@pytest.mark.parametrize(
    ("backend", "package", "words"),
    [
        ("dask", "distributed", r"create a dask.distributed.Client\(...\) before the run"),
        ("ray", "ray", r"call ray.init\(...\) before the run"),
    ],
)
def test_a_cluster_that_was_not_started_is_named(backend, package, words):
    here = importlib.util.find_spec(package) is not None
    error, words = (InputError, words) if here else (MissingPackageError, rf"\[{backend}\]")
    with pytest.raises(error, match=words):
        Joblib(n_jobs=2, backend=backend).run(Solve(lambda phi: 1.0), [Job(0, {}, 0)])
