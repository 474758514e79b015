"""Processes below a process: found, killed. Standard library only, as those who use it are."""

import os
import signal
import sys
from pathlib import Path

PROC = "/proc"


def script_command(module: str) -> list[str]:
    """The command line of `main(words)` of a module that needs the standard library only.

    Nothing of the user's is read: neither site-packages nor environment variables.
    """
    root = str(Path(__file__).parents[2])
    program = f"import sys; sys.path.insert(0, {root!r}); from {module} import main; "
    return [sys.executable, "-I", "-S", "-c", f"{program}main(sys.argv[1:])"]


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


def kill_process(pid: int) -> None:
    """Kill a process that may be gone already, or another user's."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return


def kill_group(group: int) -> bool:
    """Kill a process group; false when it is gone already."""
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        return False
    return True


def kill_tree(leader: int) -> None:
    """Kill a process group and, where /proc tells, descendants in groups of their own."""
    own = os.getpgrp()
    groups = {leader}
    for pid in descendants(leader):
        try:
            groups.add(os.getpgid(pid))
        except OSError:
            continue  # gone meanwhile
    for group in groups - {own}:
        kill_group(group)
