"""Calls of the command line on programs of people, whose store other calls read."""

from __future__ import annotations

import csv
import io

from click.testing import CliRunner

from zo_bilevel.cli.main import main

RUN = ("run", "mine.py:task", "--method", "random", "--max-solves", 12, "--store", "runs.sqlite")


NOISY = """
import numpy as np
import zo_bilevel as zb

def loss(phi, seed):
    return phi["a"] ** 2 + np.random.default_rng(seed).normal(0, 1.0)

task = zb.Problem(zb.Space(a=zb.Real(-1, 1)), loss, name="noisy")
"""


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def call_well(*words):
    answer = call(*words)
    assert answer.exit_code == 0, answer.output
    assert max(map(len, answer.output.splitlines())) <= 100
    return answer.stdout


def table(text):
    return list(csv.DictReader(io.StringIO(text)))
