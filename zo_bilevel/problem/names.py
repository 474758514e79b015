"""Compares the names a space has with the names an adapter understands."""

from __future__ import annotations

from collections.abc import Iterable

from zo_bilevel.support.errors import InputError, unknown_name_message


def refuse_unknown(owner: str, kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse the first name that is not known.

    Raises:
        InputError: Naming the owner, the name and the nearest known names.

    Example:
        >>> refuse_unknown("FMU ball.fmu", "variable", ["gravity"], ["g", "gravity"])
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise InputError(f"{owner}: {unknown_name_message(kind, name, known)}")


def refuse_unused(owner: str, names: Iterable[str], used: Iterable[str], place: str) -> None:
    """Refuse parameters of the space that would have no effect; `InputError` naming the parameters.

    Example:
        >>> refuse_unused("CommandLine", ["a"], ["a", "seed"], "no field uses them")
    """
    unused = sorted(set(names).difference(used))
    if unused:
        raise InputError(f"{owner}: parameters without effect: {', '.join(unused)}; {place}")
