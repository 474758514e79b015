"""Ends the programs of a process that was killed; standard library only.

A process that runs programs starts one of these. It holds the other end of this one's standard
input, and writes into the memory behind a file descriptor which process groups run: one slot each,
zero for none. When the input ends, because that process is gone (`kill -9` included), every group
still there is killed. Shared memory and not messages, so that a solve need not wake this process.

The kernel's own PR_SET_PDEATHSIG would kill a program but not its children, and setting it from
Python needs `preexec_fn`, which is unsafe beside threads.
"""

import array
import os
from typing import Final

from zo_bilevel.support.process_tree import kill_tree

SLOT: Final = "i"
"""Type of a slot, for `array`: a process id."""


def main(words: list[str]) -> None:
    """Wait for the end of the input, then kill the groups left."""
    fd = int(words[0])
    while os.read(0, 1):
        pass
    slots = array.array(SLOT, os.pread(fd, os.fstat(fd).st_size, 0))
    for leader in slots:
        if leader:
            kill_tree(leader)
