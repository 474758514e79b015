"""Ends the programs of a process that was killed; a script of the standard library only.

    python -I -S lifeline.py FD

A process that runs programs starts one of these. It holds the other end of this one's standard
input, and writes into the memory behind FD which process groups run: one slot each, zero for
none. When the input ends, because that process is gone (`kill -9` included), every group still
there is killed. Shared memory and not messages, so that a solve need not wake this process.

The kernel's own PR_SET_PDEATHSIG would kill a program but not its children, and setting it from
Python needs `preexec_fn`, which is unsafe beside threads.
"""

from __future__ import annotations

import array
import os
import signal
import sys
from typing import Final

PROC = "/proc"
SLOT: Final = "i"
"""Type of a slot, for `array`: a process id."""


def main(fd: int) -> None:
    """Wait for the end of the input, then kill the groups left.

    Args:
        fd: File descriptor of the slots.
    """
    while os.read(0, 1):
        pass
    slots = array.array(SLOT, os.pread(fd, os.fstat(fd).st_size, 0))
    for leader in slots:
        if leader:
            kill_tree(leader)


def kill_tree(leader: int) -> None:
    """Kill a process group and, where /proc tells, descendants that moved to groups of their own.

    Args:
        leader: Process id of the group's leader.
    """
    own = os.getpgrp()
    groups = {leader}
    for pid in descendants(leader):
        try:
            groups.add(os.getpgid(pid))
        except OSError:
            continue  # gone meanwhile
    for group in groups - {own}:
        kill_group(group)


def kill_group(group: int) -> None:
    """Kill a process group that may be gone already."""
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        return


def descendants(root: int) -> list[int]:
    """Every process below `root`, from /proc; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(PROC) if os.path.isdir(PROC) else ():
        if name.isdigit():
            children.setdefault(_parent(name), []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.extend(below)
        waiting.extend(below)
    return found


def _parent(name: str) -> int:
    try:
        with open(f"{PROC}/{name}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return -1  # gone meanwhile


if __name__ == "__main__":
    main(int(sys.argv[1]))
