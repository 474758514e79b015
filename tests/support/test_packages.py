"""Modules that somebody else is importing are not there yet."""

import sys
import types

import numpy as np

from zo_bilevel.problem.content import content_digest
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.packages import loaded


def test_a_module_that_another_thread_imports_is_left_alone(monkeypatch):
    half = types.ModuleType("torch")  # without any of its functions
    half.__spec__ = types.SimpleNamespace(_initializing=True)
    monkeypatch.setitem(sys.modules, "torch", half)
    assert loaded("torch") is None
    outcome = Solve(lambda phi: [phi["a"]])(Job(0, {"a": 2.0}, 0))
    assert (outcome.status, outcome.theta.tolist()) == ("ok", [2.0])
    assert content_digest(np.ones(3)) == content_digest(np.ones(3))
    half.__spec__ = types.SimpleNamespace(_initializing=False)
    assert loaded("torch") is half
