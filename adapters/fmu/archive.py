"""An FMU file: unpacked once in each process, its variables by name."""

import atexit
import hashlib
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from zo_bilevel.support.errors import InputError

INTERFACES = ("co-simulation", "model-exchange")
_KINDS = dict(zip(INTERFACES, ("CoSimulation", "ModelExchange"), strict=True))
MAX_UNPACKED_BYTES = 1 << 33
_unpacked: dict[str, str] = {}
_lock = threading.Lock()


@final
class FMUArchive:
    """What can be known of an FMU without running it.

    Args:
        path: The `.fmu` file.
        interface: "co-simulation", "model-exchange", or "auto" (co-simulation if it has both).

    Raises:
        InputError: If the file is no FMU, lacks the interface, or is for other machines.
    """

    def __init__(self, path: Path, interface: str) -> None:
        import fmpy

        self.path = path.absolute()
        if not self.path.is_file():
            raise InputError(f"there is no FMU file {str(self.path)!r}")
        _check_size(self.path)
        self.digest = hashlib.blake2b(self.path.read_bytes(), digest_size=6).hexdigest()
        try:
            self.description: Any = fmpy.read_model_description(str(self.path), validate=False)
            platforms = fmpy.supported_platforms(str(self.path))
        except Exception as error:
            raise InputError(f"{self.path.name} is no FMU that FMPy can read: {error}") from error
        if str(self.description.fmiVersion).startswith("1"):
            raise InputError(f"{self.path.name} is FMI 1; FMI 2 and 3 can be run")
        if fmpy.platform not in platforms and fmpy.platform_tuple not in platforms:
            raise InputError(
                f"{self.path.name} is for {', '.join(platforms) or 'no platform'}, "
                f"not for {fmpy.platform}"
            )
        self.kind = self._kind(interface)
        self.variables: dict[str, Any] = {v.name: v for v in self.description.modelVariables}

    def unpacked(self) -> str:
        """Where this process has unpacked it."""
        import fmpy

        with _lock:
            key = f"{self.path}#{self.digest}"
            if key not in _unpacked or not Path(_unpacked[key]).is_dir():
                _unpacked[key] = fmpy.extract(str(self.path))
            return _unpacked[key]

    def _kind(self, interface: str) -> str:
        there = {
            name: getattr(self.description, attribute) is not None
            for name, attribute in zip(INTERFACES, ("coSimulation", "modelExchange"), strict=True)
        }
        if interface == "auto":
            interface = next((name for name in INTERFACES if there[name]), "none")
        if not there.get(interface, False):
            offered = ", ".join(name for name in INTERFACES if there[name]) or "neither"
            raise InputError(
                f"interface must be 'auto' or one that {self.path.name} has ({offered}), "
                f"got {interface!r}"
            )
        return _KINDS[interface]


def _check_size(path: Path) -> None:
    """Refuse an archive that would fill the disk when it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{path.name} is no FMU that FMPy can read: {error}") from error
    if size > MAX_UNPACKED_BYTES:
        raise InputError(f"{path.name} would unpack to {size} bytes, at most {MAX_UNPACKED_BYTES}")


@contextmanager
def folder_kept() -> Iterator[None]:
    """Leave the working directory as it was: FMPy goes to that of the library it loads."""
    before = os.getcwd()
    try:
        yield
    finally:
        if os.getcwd() != before:
            os.chdir(before)


@atexit.register
def _remove_unpacked() -> None:
    for folder in _unpacked.values():
        shutil.rmtree(folder, ignore_errors=True)
