"""Peak memory, honestly: the GPU's allocator, and on the CPU the resident set of a process.

A process never gives its peak back, so one function is measured in a child process of its own.
"""

import ctypes
import gc
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from zo_bilevel.support.errors import InnerSolverError

KIB = 1024
CHILD_PROGRAM = """
import sys
with open(sys.argv[1] + "/path") as file:
    sys.path[:] = file.read().split("\\n")
from zo_bilevel.support.memory import _child
_child(sys.argv[1])
"""


@final
@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory in bytes.

    Args:
        cpu_bytes: Largest resident set; 0 where the system does not tell.
        gpu_bytes: Most that torch's CUDA allocator held; 0 without a GPU.
    """

    cpu_bytes: int = 0
    gpu_bytes: int = 0

    def __str__(self) -> str:
        text = f"{self.cpu_bytes / KIB**2:.0f} MiB"
        return f"{text}, GPU {self.gpu_bytes / KIB**2:.0f} MiB" if self.gpu_bytes else text


def process_memory() -> Memory:
    """Peaks of this process since its start, or since `reset_peaks`.

    Example:
        >>> process_memory().cpu_bytes >= 0
        True
    """
    return Memory(_resident_peak(), _allocator_peak())


def reset_peaks() -> None:
    """Start counting anew, where the system can (the GPU's allocator; Linux)."""
    if _cuda() is not None:
        _cuda().reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: peaks then count from the start of the process


def peak_memory(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Memory]:  # noqa: ANN401 - passed through
    """Run a function in a child process and measure what it adds at its peak.

    The function is called twice with the same arguments: the first call pays for imports and
    caches, the second is measured.

    Args:
        function: Whatever cloudpickle can send.
        *args: Passed on.
        **kwargs: Passed on.

    Returns:
        What the function returned, and its peak above the memory held before it.

    Raises:
        InnerSolverError: If it raised or its process died, with its words.

    Example:
        >>> value, memory = peak_memory(sum, [1, 2])
        >>> value, memory.gpu_bytes
        (3, 0)
    """
    import cloudpickle

    with tempfile.TemporaryDirectory() as folder:
        call, answer = Path(folder, "call"), Path(folder, "answer")
        call.write_bytes(cloudpickle.dumps((function, args, kwargs)))
        Path(folder, "path").write_text("\n".join(sys.path))
        run = subprocess.run(
            [sys.executable, "-c", CHILD_PROGRAM, folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0 or not answer.exists():
            last = run.stderr.strip().splitlines()[-1:] or [f"exit status {run.returncode}"]
            raise InnerSolverError(f"the measured process failed: {last[0]}")
        value, memory = cloudpickle.loads(answer.read_bytes())  # our own child's file
        return value, memory


def _child(folder: str) -> None:
    """Run the call that lies in a folder and leave the answer there."""
    import cloudpickle

    function, args, kwargs = cloudpickle.loads(Path(folder, "call").read_bytes())
    function(*args, **kwargs)
    _give_back()
    reset_peaks()
    before = _resident_now(), _allocator_now()
    value = function(*args, **kwargs)
    peak = process_memory()
    memory = Memory(max(0, peak.cpu_bytes - before[0]), max(0, peak.gpu_bytes - before[1]))
    Path(folder, "answer").write_bytes(cloudpickle.dumps((value, memory)))


def _give_back() -> None:
    """Return freed memory to the system, or the second call would find it there for nothing."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


def _cuda() -> Any:  # noqa: ANN401 - torch.cuda or None
    """`torch.cuda` if torch is loaded and has used a GPU; loads nothing."""
    if "torch" not in sys.modules:
        return None
    cuda = importlib.import_module("torch").cuda
    return cuda if cuda.is_available() and cuda.is_initialized() else None


def _allocator_peak() -> int:
    return 0 if _cuda() is None else int(_cuda().max_memory_allocated())


def _allocator_now() -> int:
    return 0 if _cuda() is None else int(_cuda().memory_allocated())


def _status(key: str) -> int:
    """A line of /proc/self/status in bytes, or 0."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith(key + ":")]
    return int(found[0].split()[1]) * KIB if found else 0


def _resident_now() -> int:
    return _status("VmRSS")


def _resident_peak() -> int:
    peak = _status("VmHWM")
    if peak == 0 and sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else KIB
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak
