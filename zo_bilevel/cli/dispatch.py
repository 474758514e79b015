"""Where the solves of a command run, in one word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from zo_bilevel.support.errors import InputError
from zo_bilevel.support.packages import import_optional

if TYPE_CHECKING:
    from zo_bilevel.solve.dispatch.base import Dispatcher

PLACES = ("queue", "slurm", "dask", "ray")
OPTION = re.compile(r",(?=[a-z_]+=)")


@contextmanager
def dispatcher_of(
    workers: int, timeout: float | None = None, *, is_process: bool, place: str | None = None
) -> Iterator[Dispatcher]:
    """A dispatcher for a `with` block, closed whatever happens.

    Args:
        workers: Solves at once.
        timeout: Seconds for one solve, or `None`.
        is_process: Whether solves run in processes of their own, where no place is given.
        place: "queue:STORE", "slurm:FOLDER", "dask:ADDRESS" or "ray:ADDRESS", the first two with
            options behind commas; `None` for this machine.

    Raises:
        InputError: If there is no such place, or it refuses.
    """
    with ExitStack() as stack:
        if place is not None:
            yield stack.enter_context(_elsewhere(place, timeout, stack))
        elif is_process:
            from zo_bilevel.solve.dispatch.joblib import Joblib

            yield stack.enter_context(Joblib(workers, timeout_s=timeout))
        else:
            from zo_bilevel.solve.dispatch.serial import Serial

            yield Serial()


def _elsewhere(place: str, timeout: float | None, stack: ExitStack) -> Any:  # noqa: ANN401
    from zo_bilevel.cli.loading import parse_settings
    from zo_bilevel.solve.dispatch.joblib import Joblib

    kind, _, rest = place.partition(":")
    where, *words = OPTION.split(rest)
    if kind not in PLACES or not where:
        shown = ", ".join(f"{name}:..." for name in PLACES)
        raise InputError(f"--dispatch must be one of {shown}, got {kind + ':' * (not where)!r}")
    options = parse_settings("--dispatch", words)
    try:
        if kind == "queue":
            from zo_bilevel.store.queue.queue import Queue

            if timeout is not None:
                raise InputError("--timeout is the workers': zo-bilevel worker --timeout")
            return Queue(where, **options)
        if kind == "slurm":
            from zo_bilevel.solve.dispatch.slurm import Slurm

            return Slurm(where, timeout_s=timeout, **options)
        if kind == "dask":
            distributed: Any = import_optional("distributed", "--dispatch dask", "dask")
            stack.enter_context(distributed.Client(where, **options))
        else:
            ray: Any = import_optional("ray", "--dispatch ray", "ray")
            stack.callback(ray.init(where, **options).disconnect)
    except (TypeError, OSError) as error:
        raise InputError(f"--dispatch {kind}: {error}") from error
    return Joblib(backend=kind, timeout_s=timeout)
