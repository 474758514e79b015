"""Conformance suites and faulty inner solvers, for this package's tests and for users' own.

Names are imported on first use, so that a worker process that needs one fault loads no more.

Example:
    >>> from zo_bilevel.testing import check_method
    >>> from zo_bilevel import RandomSearch
    >>> check_method(RandomSearch())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zo_bilevel.testing.conformance import check_dispatcher as check_dispatcher
    from zo_bilevel.testing.conformance import check_inner_solver as check_inner_solver
    from zo_bilevel.testing.conformance import check_method as check_method
    from zo_bilevel.testing.conformance import check_task as check_task
    from zo_bilevel.testing.conformance import refuses as refuses
    from zo_bilevel.testing.conformance import sample_problem as sample_problem
    from zo_bilevel.testing.estimators import check_estimator as check_estimator
    from zo_bilevel.testing.failing import FAULTS as FAULTS
    from zo_bilevel.testing.failing import Failing as Failing
    from zo_bilevel.testing.failing import check_survives as check_survives
    from zo_bilevel.testing.faults import Crashing as Crashing
    from zo_bilevel.testing.faults import Hanging as Hanging
    from zo_bilevel.testing.faults import HeavyTailedNoise as HeavyTailedNoise
    from zo_bilevel.testing.faults import Leaking as Leaking
    from zo_bilevel.testing.faults import NotANumber as NotANumber
    from zo_bilevel.testing.faults import Raising as Raising
    from zo_bilevel.testing.faults import Unpicklable as Unpicklable
    from zo_bilevel.testing.perversions import PERVERSIONS as PERVERSIONS
    from zo_bilevel.testing.perversions import Perverse as Perverse
    from zo_bilevel.testing.perversions import check_same_numbers as check_same_numbers
    from zo_bilevel.testing.simulated_clock import SimulatedClock as SimulatedClock
    from zo_bilevel.testing.stores import check_store as check_store

_FAULTS = "Crashing Hanging HeavyTailedNoise Leaking NotANumber Raising Unpicklable"
_CHECKS = "check_dispatcher check_inner_solver check_method check_task refuses sample_problem"
_HOMES = {
    "conformance": _CHECKS.split(),
    "estimators": ["check_estimator"],
    "failing": ["FAULTS", "Failing", "check_survives"],
    "faults": _FAULTS.split(),
    "perversions": ["PERVERSIONS", "Perverse", "check_same_numbers"],
    "simulated_clock": ["SimulatedClock"],
    "stores": ["check_store"],
}
_HOME_OF = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
