"""Peak memory is what a function really holds, and flat for FG2U."""

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll

MIB = 1 << 20


def hold(mebibytes):
    return float(np.ones(mebibytes * MIB // 8).sum())


def wide_loop(num_steps):
    def init(phi):
        return torch.zeros(MIB // 4)  # 1 MiB

    def step(theta, phi, t, batch):
        return torch.tanh(theta + phi["a"])

    return TorchUnroll(init, step, num_steps, dtype=torch.float32)


def push(num_steps):
    loop = wide_loop(num_steps)
    _, tangents = loop.jvp({"a": 0.1}, {"a": np.ones(1)}, seed=0)
    return float(tangents.sum())


def pull(num_steps):
    loop = wide_loop(num_steps)
    return float(loop.pull_trajectory({"a": 0.1}, lambda _: np.ones(MIB // 4), seed=0)[1]["a"])


def test_the_peak_is_what_is_held():
    value, memory = zb.peak_memory(hold, 64)
    assert value == 64 * MIB / 8
    assert memory.cpu_bytes == pytest.approx(64 * MIB, rel=0.1)
    assert memory.gpu_bytes == 0


def most_allocated(function, num_steps):
    """Most bytes that torch's allocator held at once; the same in every run."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function(num_steps)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(np.cumsum(changes).max())


def test_forward_mode_allocates_the_same_whatever_the_steps():
    forward = [most_allocated(push, steps) for steps in (20, 200)]
    reverse = [most_allocated(pull, steps) for steps in (20, 200)]
    assert forward[0] == pytest.approx(6 * MIB, rel=0.01)
    assert forward[1] <= 1.01 * forward[0]
    assert reverse[1] - reverse[0] == pytest.approx(180 * MIB, rel=0.01)  # one tensor a step


def test_what_a_process_holds_is_little_in_forward_mode_and_one_tensor_a_step_in_reverse_mode():
    forward, reverse = (zb.peak_memory(mode, 200)[1].cpu_bytes for mode in (push, pull))
    assert reverse > 0.8 * 200 * MIB
    assert forward < 0.2 * reverse


def test_a_failure_in_the_child_is_told():
    with pytest.raises(zb.InnerSolverError, match=r"measured process failed.*ZeroDivisionError"):
        zb.peak_memory(lambda: 1 / 0)


def test_a_result_tells_its_peak():
    problem = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: [phi["a"]], zb.SquaredError([0.5]))
    result = zb.minimize(problem, zb.RandomSearch(), max_solves=2)
    assert result.memory.cpu_bytes > 10 * MIB
    assert str(zb.Memory(3 * MIB, 5 * MIB)) == "3 MiB, GPU 5 MiB"
