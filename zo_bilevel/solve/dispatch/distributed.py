"""Rounds split over the ranks of a `torch.distributed` process group."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, final

from zo_bilevel.solve.dispatch.base import Dispatcher, Solve, WithBlock
from zo_bilevel.solve.dispatch.serial import Serial
from zo_bilevel.solve.evaluation import Job, Outcome
from zo_bilevel.support.errors import InputError


@final
class Distributed(WithBlock):
    """Run each rank's share of a round, then give all outcomes to all ranks.

    Every rank runs the same program with the same seed, as under `torchrun`, and gets the same
    result as one process would. Such runs are limited in solves or cost: `minimize` refuses
    `max_seconds`, since the ranks' clocks differ and one would stop a round before the others.

    Args:
        local: Runs a rank's own share; default `Serial()`.

    Raises:
        InputError: If no process group is initialised when a round is run.

    Example:
        >>> Distributed()
        Distributed(Serial())
    """

    def __init__(self, local: Dispatcher | None = None) -> None:
        self.local: Dispatcher = Serial() if local is None else local

    def run(self, solve: Solve, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Run the jobs; every rank must call this with the same round.

        Yields:
            Each job's index and outcome, in order.

        Raises:
            InputError: If there is no process group, or the ranks ask for different rounds.
        """
        group = _group()
        if group is None:
            raise InputError(
                "Distributed needs an initialised process group; call "
                "torch.distributed.init_process_group first, as torchrun scripts do"
            )
        rank, world = group.get_rank(), group.get_world_size()
        mine = [jobs[k] for k in range(rank, len(jobs), world)]
        share = (
            [(job.index, job.seed) for job in jobs],
            dict(self.local.run(solve, mine)) if mine else {},
        )
        shares: list[Any] = [None] * world
        group.all_gather_object(shares, share)
        if any(asked != share[0] for asked, _ in shares):
            raise InputError(
                "ranks asked for different rounds; give every rank the same problem, method and "
                "seed, and limit the run by max_solves"
            )
        found: dict[int, Outcome] = {}
        for _, outcomes in shares:
            found.update(outcomes)
        for job in jobs:
            yield job.index, found[job.index]

    def close(self) -> None:
        """Let go of this rank's own workers."""
        self.local.close()

    def __repr__(self) -> str:
        return f"Distributed({self.local!r})"


def default_dispatcher() -> Dispatcher:
    """`Distributed()` when a process group of several ranks is initialised, else `Serial()`."""
    group = _group()
    return Serial() if group is None or group.get_world_size() == 1 else Distributed()


def check_limits(dispatcher: Dispatcher, max_seconds: float | None) -> None:
    """Refuse a limit in seconds for a run on several ranks.

    Raises:
        InputError: If each rank would have to decide by its own clock.
    """
    if max_seconds is None or not isinstance(dispatcher, Distributed):
        return
    raise InputError(
        f"max_seconds must be None with Distributed, got {max_seconds:g}: the ranks' clocks "
        "differ, so they would not stop together and would wait for each other for ever; limit "
        "the run by max_solves"
    )


def _group() -> Any:  # noqa: ANN401 - the module torch.distributed or None
    """`torch.distributed` if it is loaded and initialised; never imports it."""
    group = sys.modules.get("torch.distributed")
    if group is None or not group.is_available() or not group.is_initialized():
        return None
    return group
