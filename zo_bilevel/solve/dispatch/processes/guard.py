"""Starts one worker process and answers for its whole process tree, with the standard library only.

Run by `supervisor.py` in a process of its own: `main(EVENT_FD REQUEST_FD REPLY_FD COMMAND...)`.
It ends the tree when the worker dies, when its standard input is closed (the parent asks for it,
or the parent is gone, `kill -9` included), or on SIGTERM; then it writes one line to EVENT_FD that
says how the worker ended, and exits. User code never runs in this process, so nothing that user
code does (hold the interpreter lock in C, close files, change signal handlers) can stop it.

On Linux the guard is the tree's subreaper (prctl(2)): a grandchild that moved to another session
or whose parent died still descends from the guard, and is found and killed. Elsewhere only the
worker's own process group is.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

from zo_bilevel.support.process_tree import PROC, descendants, kill_group, kill_process

PR_SET_CHILD_SUBREAPER = 36
PARENT_CHECK_S = 2.0
END_LIMIT_S = 5.0
OWN_PID = "GUARD"
"""Stands in the worker's command line for the process id of its guard."""


def main(arguments: list[str]) -> None:
    """Start the worker, wait for its end or for the order to end it, leave nothing behind."""
    event_fd, request_fd, reply_fd = (int(text) for text in arguments[:3])
    _open_standard_streams()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake_fd = _wake_on_signals()
    try:
        worker = subprocess.Popen(
            [str(os.getpid()) if word == OWN_PID else word for word in arguments[3:]],
            stdin=subprocess.DEVNULL,
            pass_fds=(request_fd, reply_fd),
            start_new_session=True,
        )
    except OSError as error:
        _tell(event_fd, f"could not start: {error}")
        return
    os.close(request_fd)
    os.close(reply_fd)
    ending = _watch(worker.pid, wake_fd)
    end_tree(worker.pid)
    from zo_bilevel.support.solve_folders import remove_folders_of  # memory for the end alone

    remove_folders_of(worker.pid)
    _tell(event_fd, ending)
    os._exit(0)  # the Popen object would complain that its child was reaped elsewhere


def _open_standard_streams() -> None:
    """Where standard output or error is closed, a file of the solver's would take its number."""
    for fd in (1, 2):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)


def _wake_on_signals() -> int:
    """Turn the signals that matter into bytes on a pipe; return its read end."""
    wake_fd, signal_fd = os.pipe()
    for fd in (wake_fd, signal_fd):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(signal_fd, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return wake_fd


def _watch(worker: int, wake_fd: int) -> str:
    """Wait until the worker ends or must end; say which."""
    parent = os.getppid()
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(wake_fd, select.POLLIN)
    while True:
        ready = dict(poller.poll(PARENT_CHECK_S * 1000))
        if wake_fd in ready:
            signals = os.read(wake_fd, 1024)
            ending = reap(worker)
            if ending:
                return ending
            if signal.SIGTERM in signals:
                return "ended by SIGTERM to its guard"
        if 0 in ready or os.getppid() != parent:
            return "ended on request"


def reap(worker: int = 0) -> str:
    """Collect every dead child; return how `worker` ended, or "" if it is not among them."""
    ending = ""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ending
        if pid == 0:
            return ending
        if pid == worker:
            ending = describe_exit(os.waitstatus_to_exitcode(status))


def describe_exit(code: int) -> str:
    """An exit code of `subprocess` style in words.

    Example:
        >>> describe_exit(3), describe_exit(-11)
        ('exited with status 3', 'killed by SIGSEGV')
    """
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory, often)" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"


def end_tree(worker: int) -> None:
    """Kill all descendants of this process, and wait until they are gone."""
    deadline = time.monotonic() + END_LIMIT_S
    pause = 0.001
    while time.monotonic() < deadline:
        if os.path.isdir(PROC):
            doomed = descendants(os.getpid())
            for pid in doomed:
                kill_process(pid)
        else:
            doomed = [worker] if kill_group(worker) else []
        reap()
        if not doomed:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _tell(event_fd: int, text: str) -> None:
    try:
        os.write(event_fd, text.encode())
    except OSError:
        return  # nobody is left to be told
