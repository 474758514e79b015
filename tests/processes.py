"""Processes that tests start: the command line, and finding all that it left behind."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

import zo_bilevel as zb

WORKING = """
import sys, time, zo_bilevel as zb

def inner(phi):
    print("solving", flush=True)
    time.sleep(60)

problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), inner, name="p")
zb.minimize(problem, zb.RandomSearch(), max_solves=6, store=sys.argv[1])
"""
"""A run whose first solve says so and takes a minute, on the store that is its argument."""


def marked(word: bytes) -> list[int]:
    """Process ids with this word in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and word in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def gone_within(word: bytes, seconds: float) -> bool:
    """Whether they are all gone before so many seconds are over."""
    deadline = time.monotonic() + seconds
    while marked(word):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def start_process(*words, **options):
    """The real program, from a checkout or installed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(zb.__file__).parents[1])}
    command = [sys.executable, "-m", "zo_bilevel", *map(str, words)]
    return subprocess.Popen(command, env=environment, text=True, **options)


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
