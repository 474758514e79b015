"""Rounds over the ranks of a process group: two gloo processes on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unrolled import SmallNetwork

import zo_bilevel as zb

PROGRAM = """
import json, os, sys
sys.path.insert(0, "tests")
import torch.distributed as dist
import zo_bilevel as zb
from unrolled import SmallNetwork
rank, meeting_point = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
network = SmallNetwork(0, num_steps=3)
calls = [0]
plain_jvp = network.loop.jvp
def counted(*args, **kwargs):
    calls[0] += 1
    return plain_jvp(*args, **kwargs)
network.loop.jvp = counted
found = zb.hypergradient(network.problem, network.phi, estimator=zb.FG2U(4, chunk=1), seed=3)
shared = calls[0]
result = zb.minimize(network.problem, zb.GradientMethod(zb.FG2U(4, chunk=2)), max_solves=18)
dist.barrier()
try:
    zb.hypergradient(network.problem, network.phi, estimator=zb.FG2U(1), seed=rank)
    refused = ""
except zb.InputError as error:
    refused = str(error)
try:
    zb.minimize(network.problem, zb.GradientMethod(zb.FG2U(4)), max_seconds=5.0, max_solves=18)
    refused_limit = ""
except zb.InputError as error:
    refused_limit = str(error)
print(json.dumps({
    "gradient": {name: value.ravel().tolist() for name, value in found.items()},
    "x": result.x.tolist(), "loss": result.loss, "calls": shared, "refused": refused,
    "refused_limit": refused_limit,
}), flush=True)
dist.barrier()
dist.destroy_process_group()
# A thread of gloo that lets go of a tensor while the interpreter ends aborts the process
# (github.com/pytorch/pytorch/issues/190489), so the interpreter is not ended here.
os._exit(0)
"""


def test_two_processes_share_the_work_and_give_the_numbers_of_one(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    try:
        heard = [process.communicate(timeout=120) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    assert [process.returncode for process in ranks] == [0, 0], heard
    answers = [json.loads(out.splitlines()[-1]) for out, _ in heard]
    network = SmallNetwork(0, num_steps=3)
    alone = zb.hypergradient(network.problem, network.phi, estimator=zb.FG2U(4, chunk=1), seed=3)
    result = zb.minimize(network.problem, zb.GradientMethod(zb.FG2U(4, chunk=2)), max_solves=18)
    for answer in answers:
        for name, value in alone.items():
            np.testing.assert_array_equal(answer["gradient"][name], value.ravel())
        np.testing.assert_array_equal(answer["x"], result.x)
        assert answer["loss"] == result.loss
        assert answer["calls"] == 11  # of five sketches of four each, and two repeats
        assert "ranks asked for different rounds" in answer["refused"]
        assert "max_seconds must be None with Distributed, got 5" in answer["refused_limit"]


def test_without_a_group_it_says_what_to_do():
    network = SmallNetwork(0, num_steps=1)
    with pytest.raises(zb.InputError, match=r"call torch\.distributed.init_process_group first"):
        zb.hypergradient(
            network.problem, network.phi, estimator=zb.FG2U(2), dispatcher=zb.Distributed()
        )


def test_a_limit_in_seconds_is_refused_before_the_first_solve():
    solves = []

    def solve(phi):
        solves.append(phi)
        return phi["a"]

    problem = zb.Problem(zb.Space(a=zb.Real(0, 1)), solve, zb.SquaredError(0.5))
    with pytest.raises(zb.InputError, match="max_seconds must be None with Distributed, got 2"):
        zb.minimize(problem, max_seconds=2.0, dispatcher=zb.Distributed())
    assert solves == []
