"""What a table of the paper would need, before a day is spent on it."""

import dataclasses
import math
from typing import Any

from zo_bilevel import tasks
from zo_bilevel.adapters.torch_unroll.checkpointed import memory_of_a_step
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.tables import Grid
from zo_bilevel.tasks.online_adaptation import SIZES, Adaptation


def dry_run(table: str, size: str, *, path: str | None, device: str) -> Grid:
    """Shapes and memory of one size, by tensors without numbers.

    Args:
        table: "condensation" or "online-adaptation".
        size: "smoke", "small" or "full".
        path: Folder with MNIST's IDX files, or `None`.
        device: Where it would run.

    Raises:
        InputError: If the table has no training loop.
    """
    if table == "pde":
        raise InputError("pde has no training loop to check; --size full runs on a CPU")
    if table == "condensation":
        task = tasks.load(table, size=size, device=device, path=path)
        inner: Any = task.problem.inner
        loop = inner.built.loop
    else:
        task = tasks.load(table, size=size, device=device)
        untrained = dataclasses.replace(SIZES[size], pretraining=0)
        loop = Adaptation(untrained, untrained.unroll, None, device, 0.1).loop
    phi = task.problem.space.decode(task.problem.space.encode(task.start(0)))
    found = memory_of_a_step(loop, phi)
    steps = loop.num_steps
    root = math.ceil(math.sqrt(steps))
    rows = [
        ("parameters phi", f"{task.problem.space.size:,}"),
        ("numbers in the state", f"{found.state_numbers:,}"),
        ("a state", _bytes(found.state)),
        ("graph of one step", _bytes(found.graph)),
        (f"RGU, {steps} steps", _bytes(steps * found.graph)),
        (f"RGU with {root} states kept", _bytes(root * (found.state + found.graph))),
        ("(FG)2U, chunk 32, about", _bytes(33 * found.graph)),
    ]
    return Grid(f"{table}, size {size}: a dry run", ("what", "size"), tuple(rows))


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
