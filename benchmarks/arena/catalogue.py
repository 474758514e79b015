"""Every problem of the arena, by group and half."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.arena.case import Half
from benchmarks.arena.fields import field_problems
from benchmarks.arena.large import large_problems
from benchmarks.arena.more_wild import more_wild_problems
from benchmarks.arena.nist import FOLDER, nist_problems
from benchmarks.arena.outer import outer_problems
from benchmarks.arena.problem import ArenaProblem, Noise
from benchmarks.arena.simulators import simulator_problems
from benchmarks.arena.variants import noisy_variants, wide_variants, with_noise

GROUPS = (
    "more-wild",
    "nist",
    "large",
    "simulators",
    "fields",
    "outer",
    "additive-noise",
    "proportional-noise",
    "step-noise",
    "wide",
)
FIELD_NOISE = Noise("additive", 1e-3)


@cache
def all_problems(nist_folder: Path = FOLDER) -> tuple[ArenaProblem, ...]:
    """All groups, both halves.

    Args:
        nist_folder: Where NIST's files are.
    """
    small, regressions = more_wild_problems(), nist_problems(nist_folder)
    simulators, fields = simulator_problems(), field_problems()
    plain = [*small, *regressions, *large_problems(), *simulators, *fields]
    noisy = noisy_variants([*small, *regressions[::2], *simulators[::2]])
    noisy += [with_noise(field, FIELD_NOISE) for field in fields[::3]]
    wide = wide_variants([*small[::2], *regressions[1::4]])
    return (*plain, *outer_problems(plain), *noisy, *wide)


def chosen(
    half: Half | None, groups: Sequence[str] = GROUPS, nist_folder: Path = FOLDER
) -> list[ArenaProblem]:
    """Problems of a half and some groups.

    Args:
        half: "tune", "held", or `None` for both.
        groups: Of `GROUPS`.
        nist_folder: Where NIST's files are.

    Raises:
        ValueError: If there is no such group.
    """
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise ValueError(f"groups must be among {', '.join(GROUPS)}, got {', '.join(unknown)}")
    return [
        problem
        for problem in all_problems(nist_folder)
        if problem.group in groups and half in (None, problem.half)
    ]


@cache
def _by_name() -> dict[str, ArenaProblem]:
    return {problem.name: problem for problem in all_problems()}


def problem_named(name: str) -> ArenaProblem:
    """One problem.

    Args:
        name: Its name.

    Raises:
        KeyError: If there is none.
    """
    return _by_name()[name]
