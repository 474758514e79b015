"""Conformance suites and faulty inner solvers, for this package's tests and for users' own.

Names are imported on first use, so that a worker process that needs one fault loads no more.

Example:
    >>> from zo_bilevel.testing import check_method
    >>> from zo_bilevel import RandomSearch
    >>> check_method(RandomSearch())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zo_bilevel.support.lazy_names import lazy_names

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

__getattr__, __dir__, __all__ = lazy_names(__name__)
