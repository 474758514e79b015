"""Judge methods on losses: bbob, real-world functions, mixed problems, prompt slots, policies."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: runs are small, processes many

from rich.console import Console
from rich.progress import track

from benchmarks.arena import (
    bbob_functions,
    mixed_problems,
    nevergrad_functions,
    policy_problems,
    slots_problems,
)
from benchmarks.arena.case import Case
from benchmarks.arena.racing import Job, Trace, solve_all
from benchmarks.arena.scalar_tables import (
    coco_table,
    function_table,
    gain_table,
    median_table,
    time_table,
)

SUITES: dict[str, Callable[[], list[Case]]] = {
    "bbob": bbob_functions.cases,
    "real-world": nevergrad_functions.cases,
    "mixed": mixed_problems.cases,
    "slots": slots_problems.cases,
    "policy": policy_problems.cases,
}


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.arena", description=__doc__)
    found.add_argument("--half", choices=("tune", "held", "all"), default="tune")
    found.add_argument("--methods", default="default", help="names, or file.py:function")
    found.add_argument("--size", type=int, nargs="*", help="keep cases of this N")
    found.add_argument("--budget", type=int, nargs="*", help="keep cases of this many solves")
    found.add_argument("--only", nargs="*", default=[], help="keep cases with one of these words")
    found.add_argument("--seeds", type=int, default=5)
    found.add_argument("--round-width", type=int, default=1)
    found.add_argument("--jobs", type=int, default=1, help="runs at once, each in a process")
    found.add_argument("--cache", type=Path, help="folder that remembers runs")
    found.add_argument("--each", action="store_true", help="a line for each case")
    return found


def chosen_cases(suite: str, options: argparse.Namespace) -> list[Case]:
    """The cases that the arguments keep.

    Args:
        suite: Of `SUITES`.
        options: Parsed arguments.
    """
    return [
        case
        for case in SUITES[suite]()
        if options.half in ("all", case.half)
        and (not options.budget or case.max_solves in options.budget)
        and (not options.only or any(word in str(case) for word in options.only))
        and (not options.size or case.size in options.size)
    ]


def race(
    cases: Sequence[Case], methods: Sequence[str], options: argparse.Namespace
) -> dict[tuple[str, str], list[Trace]]:
    """All runs by case and method, in the order of their seeds.

    Args:
        cases: Where.
        methods: Names.
        options: Parsed arguments.
    """
    jobs = [
        Job(case, method, seed, options.round_width)
        for case in cases
        for method in methods
        for seed in range(options.seeds)
    ]
    found: dict[tuple[str, str], list[Trace]] = {}
    runs = solve_all(jobs, options.cache, options.jobs)
    for trace in track(runs, total=len(jobs), console=Console(stderr=True)):
        found.setdefault((trace.case, trace.method), []).append(trace)
    for traces in found.values():
        traces.sort(key=lambda trace: trace.seed)
    return found


def main(suite: str, words: Sequence[str]) -> None:
    """Run what is missing and print.

    Args:
        suite: Of `SUITES`.
        words: The command line's.
    """
    options = parser().parse_args(words)
    cases, methods = chosen_cases(suite, options), options.methods.split(",")
    if not cases:
        raise SystemExit("no case is left: see --suite, --half, --size, --budget and --only")
    traces = race(cases, methods, options)
    console = Console(width=max(120, 24 + 22 * max(len(methods), 4)))
    tables = [gain_table] if suite == "slots" else [median_table]
    if suite == "bbob":
        tables = [coco_table, function_table] if options.each else [coco_table]
    for table in (*tables, time_table):
        console.print(table(cases, methods, traces))
