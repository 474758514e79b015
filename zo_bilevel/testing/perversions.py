"""Harmless perversions of an inner solver: what real ones do beside solving.

Each gives the numbers of the plain solver in a way that a careless framework trips over. A run on
it must give the numbers of a run on the plain one, to the last bit, or refuse it with a reason.

Example:
    >>> from zo_bilevel import RandomSearch
    >>> check_same_numbers(RandomSearch(), "reused buffers")
    ''
"""

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, final

import numpy as np

from zo_bilevel.methods.base import Method
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.parameters import Log, Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.run.loop import minimize
from zo_bilevel.solve.dispatch.base import Dispatcher
from zo_bilevel.support.errors import InputError, ZoBilevelError, unknown_name_message
from zo_bilevel.testing.fault_points import chance
from zo_bilevel.testing.settings_kept import settings_kept

Parts: TypeAlias = dict[str, Any]
Act: TypeAlias = Callable[["Perverse", Any, Parts], Any]

TIMES = np.linspace(0.0, 3.0, 12)
ABOUT_NAMES = ("names in another order",)


def oscillation(phi: Mapping[str, Any]) -> Parts:
    """A damped oscillation at twelve times, as one matrix."""
    damping, stiffness = (np.asarray(phi[name]) for name in ("damping", "stiffness"))
    wave = np.exp(-damping * TIMES) * np.cos(3.0 * stiffness * TIMES)
    return {"wave": wave.reshape(3, 4)}


@final
class Perverse:
    """A solver of two parameters, `stiffness` and `damping`, that does more than it is asked for.

    Args:
        kind: One of `PERVERSIONS`, or "plain".

    Raises:
        InputError: If there is no such kind.
    """

    def __init__(self, kind: str = "plain") -> None:
        if kind not in _ACTS:
            raise InputError(unknown_name_message("perversion", kind, _ACTS))
        self.kind = kind
        self.name = f"perverse: {kind}"
        self._kept: dict[int, Parts] = {}

    @property
    def kept(self) -> Parts:
        """What it keeps between solves: of each thread its own, or two would write one array."""
        return self._kept.setdefault(threading.get_ident(), {})

    def __call__(self, phi: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever it likes
        """Solve, and misbehave."""
        return self._answer(phi, oscillation(phi))

    def solve_batch(self, phis: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever it likes
        """Solve a whole round, and misbehave."""
        names, columns = list(phis), list(phis.values())
        rows = [
            oscillation(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)
        ]
        stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return self._answer(phis, stacked)

    def _answer(self, phi: Any, parts: Parts) -> Any:  # noqa: ANN401 - whatever it likes
        """A bare array, or the same in two parts for what is about names."""
        if self.kind not in ABOUT_NAMES:
            return _ACTS[self.kind](self, phi, parts)["wave"]
        early, late = np.split(parts["wave"], [2], axis=-2)
        return _ACTS[self.kind](self, phi, {"early": early, "late": late})

    def problem(self) -> Problem:
        """The problem of finding the parameters behind a measured oscillation."""
        space = Space(stiffness=Real(0.5, 1.5), damping=Log(0.05, 5.0))
        target = oscillation({"stiffness": 1.1, "damping": 0.4})["wave"]
        parts = {"early": target[:2], "late": target[2:]}
        outer = SquaredError(parts if self.kind in ABOUT_NAMES else target)
        return Problem(space, self, outer, name=self.name)


def check_same_numbers(
    method: Method,
    kind: str,
    dispatcher: Dispatcher | None = None,
    *,
    with_store: bool = False,
    max_solves: int = 24,
    round_width: int = 3,
) -> str:
    """Check that a perversion changes no number of a run.

    Args:
        method: Searches.
        kind: One of `PERVERSIONS`.
        dispatcher: Runs the solves; default `Serial()`.
        with_store: Whether the run has a store, from which it is then repeated.
        max_solves: Budget.
        round_width: Solves that are asked for at once.

    Returns:
        Why the perverse solver is refused, in words; empty where it works.

    Raises:
        AssertionError: If the numbers differ.
    """
    options: dict[str, Any] = {"max_solves": max_solves, "round_width": round_width}
    plain = minimize(Perverse().problem(), method, **options)
    with settings_kept(), tempfile.TemporaryDirectory() as folder:
        if with_store:
            options["store"] = os.path.join(folder, "runs.sqlite")
        try:
            for _ in range(2 if with_store else 1):
                found = minimize(Perverse(kind).problem(), method, dispatcher=dispatcher, **options)
                pairs = zip(plain.history, found.history, strict=False)
                for number, (one, other) in enumerate(pairs, 1):
                    _same(kind, f"the loss of solve {number}", one.loss, other.loss)
                _same(kind, "solves", plain.solves, found.solves)
                _same(kind, "phi", plain.phi, found.phi)
                _same(kind, "stop_reason", plain.stop_reason, found.stop_reason)
        except ZoBilevelError as refusal:
            if not str(refusal):
                raise AssertionError(f"{kind}: a refusal must say why") from refusal
            return str(refusal)
    return ""


def _same(kind: str, what: str, plain: object, found: object) -> None:
    if plain != found:
        raise AssertionError(f"{kind}: {what} is {found!r}, of the plain solver {plain!r}")


def _reused_buffers(solver: Perverse, _: Any, parts: Parts) -> Any:  # noqa: ANN401
    kept = solver.kept
    for name, part in parts.items():
        if getattr(kept.get(name), "shape", None) != part.shape:
            kept[name] = np.zeros_like(part)
        kept[name][...] = part
    return kept


def _spoiled_later(solver: Perverse, _: Any, parts: Parts) -> Any:  # noqa: ANN401
    kept = solver.kept
    for part in kept.values():
        part[...] = np.nan
    kept.update(parts)
    return dict(parts)


def _changed_phi(_: Perverse, phi: Any, parts: Parts) -> Any:  # noqa: ANN401
    for name, value in list(phi.items()):
        if isinstance(value, np.ndarray):
            value[...] = 0.0
        phi[name] = 0.0
    phi["more"] = 1
    return parts


def _other_folder(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    os.chdir("/")
    return parts


def _printing(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    print("step 1 of 7\r\x1b[1m residual 0\0", flush=True)  # noqa: T201 - the perversion
    print("warning: \x1b[31mnothing is wrong", file=sys.stderr)  # noqa: T201
    return parts


def _reseeding(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the perversion
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
    return parts


def _gradients_off(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    import torch

    torch.set_grad_enabled(False)
    return parts


def _strict_numpy(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    np.seterr(all="raise")
    return parts


def _read_only(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    for part in parts.values():
        part.flags.writeable = False
    return MappingProxyType(parts)


def _tensors(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    import torch

    return {name: torch.tensor(part, requires_grad=True) for name, part in parts.items()}


def _labelled(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    import pandas

    def table(part: Any) -> Any:  # noqa: ANN401
        return pandas.DataFrame(part).add_prefix("t") if part.ndim == 2 else part

    return {name: table(part) for name, part in parts.items()}


def _other_order(solver: Perverse, _: Any, parts: Parts) -> Any:  # noqa: ANN401
    kept = solver.kept
    kept["calls"] = kept.get("calls", 0) + 1
    return dict(reversed(parts.items())) if kept["calls"] % 2 else parts


def _keeping_threads(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    threading.Thread(target=time.sleep, args=(0.2,), daemon=True).start()
    return parts


def _forking(_: Perverse, __: Any, parts: Parts) -> Any:  # noqa: ANN401
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return parts


def _sleeping(_: Perverse, phi: Any, parts: Parts) -> Any:  # noqa: ANN401
    time.sleep(0.01 * chance(phi, None, "sleep"))
    return parts


_ACTS: Mapping[str, Act] = MappingProxyType(
    {
        "plain": lambda _, __, parts: parts,
        "reused buffers": _reused_buffers,
        "answer spoiled later": _spoiled_later,
        "phi changed in place": _changed_phi,
        "other folder": _other_folder,
        "printing": _printing,
        "reseeding": _reseeding,
        "gradients off": _gradients_off,
        "numpy raises": _strict_numpy,
        "read-only": _read_only,
        "Fortran order": lambda _, __, parts: {k: np.asfortranarray(v) for k, v in parts.items()},
        "strided": lambda _, __, parts: {
            k: np.repeat(v, 2, -1)[..., ::2] for k, v in parts.items()
        },
        "lists": lambda _, __, parts: {k: v.tolist() for k, v in parts.items()},
        "long double": lambda _, __, parts: {k: v.astype(np.longdouble) for k, v in parts.items()},
        "tensors": _tensors,
        "labelled": _labelled,
        "names in another order": _other_order,
        "keeping threads": _keeping_threads,
        "forking": _forking,
        "sleeping": _sleeping,
    }
)
PERVERSIONS: tuple[str, ...] = tuple(kind for kind in _ACTS if kind != "plain")
"""What a solver can do beside solving, by name."""
