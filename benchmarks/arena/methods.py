"""Methods by name, and what their cached runs depend on."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path

import zo_bilevel as zb
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.methods.names import method_from_name

LIBRARIES = (
    *("cma", "nevergrad", "optuna", "cmaes", "botorch", "gpytorch", "torch", "smac", "scipy"),
    *("Py-BOBYQA", "DFO-LS", "iterative-ensemble-smoother", "ibcdfo"),
)


def make_method(name: str) -> zb.Method:
    """A method by its name on the command line, or of a file of one's own.

    Args:
        name: As `zo-bilevel methods` lists them, or `path/to/file.py:function`, a function of no
            arguments that returns a method.
    """
    path, _, attribute = name.partition(".py:")
    if not attribute:
        return method_from_name(name)
    spec = importlib.util.spec_from_file_location(Path(path).name, path + ".py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)()  # type: ignore[no-any-return]


@cache
def fingerprint(name: str) -> str:
    """Digest of all that a method's runs depend on beside the case.

    A peer's runs stay as long as its own file and the libraries stay; ours are forgotten with any
    change of the package.

    Args:
        name: Of the method.
    """
    try:
        kind = type(make_method(name))
    except zb.MissingPackageError:
        return "missing"
    digest = hashlib.sha256()
    if issubclass(kind, Baseline):
        digest.update(Path(str(sys.modules[kind.__module__].__file__)).read_bytes())
        digest.update(repr([_version(library) for library in LIBRARIES]).encode())
        return digest.hexdigest()
    own = sorted(Path(str(zb.__file__)).parent.rglob("*.py"))
    if ".py:" in name:
        own.append(Path(name.partition(".py:")[0] + ".py"))
    for path in own:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""
