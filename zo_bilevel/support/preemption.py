"""A queue that takes its machine back says so by a signal: the run then ends as by Ctrl-C."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 10.0
"""Seconds in which a run must have ended; the signal then kills what is left of the process."""
NAMES = ("SIGTERM", "SIGHUP")


@contextmanager
def ends_when_preempted() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `KeyboardInterrupt`, once: a second one kills.

    A program's own handlers stay in charge, as does a signal that is ignored (`nohup`). Outside of
    the main thread, where Python allows no handlers, nothing changes.
    """
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    timers: list[threading.Timer] = []

    def let_go() -> None:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)

    def interrupt(number: int, _: FrameType | None) -> None:
        let_go()
        timer = threading.Timer(GRACE_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()
        timers.append(timer)
        raise KeyboardInterrupt

    try:
        for number in taken:
            signal.signal(number, interrupt)
        yield
    finally:
        let_go()
        for timer in timers:
            timer.cancel()
