"""The example of the documentation: one program, four places, the same numbers to the last bit."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import running

PROGRAM = str(Path(__file__).parents[2] / "examples" / "four_places.py")
TOKEN = {"ZO_BILEVEL_TOKEN": "a secret of ours", "OMP_NUM_THREADS": "1"}


def ran(folder, place):
    command = [sys.executable, PROGRAM, place]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **TOKEN},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    printed = ran(tmp_path_factory.mktemp("laptop"), "laptop")
    assert printed.count("\n") == 25
    return printed


@pytest.mark.parametrize("place", ["slurm-here", "dask"])
@pytest.mark.slow
def test_clusters(place, laptop, tmp_path):
    needed = {"slurm-here": "submitit", "dask": "distributed"}[place]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    assert ran(tmp_path, place) == laptop


def test_three_workers_on_postgresql(laptop, tmp_path):
    with running() as server:
        address = server.database("places")
        command = [sys.executable, "-m", "zo_bilevel", "worker", address, f"{PROGRAM}:problem"]
        options = {"cwd": tmp_path, "env": {**os.environ, **TOKEN}, "stderr": subprocess.DEVNULL}
        workers = [subprocess.Popen(command, **options) for _ in range(3)]
        try:
            assert ran(tmp_path, address) == laptop
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait(30)
