"""Judge methods on vectors: run what is missing, remember it, print the scores."""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.arena.case import Half
from benchmarks.arena.catalogue import GROUPS, chosen
from benchmarks.arena.nist import FOLDER
from benchmarks.arena.page import write_page
from benchmarks.arena.peers import peers_of
from benchmarks.arena.problem import ArenaProblem, FloatArray
from benchmarks.arena.running import ArenaRun, Cache, run_all, version_of
from benchmarks.arena.scores import share_table
from benchmarks.arena.table import print_group, print_problems, print_stops, print_summary

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "zo_bilevel" / "arena"


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line's words."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arena --suite vectors", description=__doc__
    )
    parser.add_argument("--method", nargs="*", default=["default"], help="the project's, by name")
    parser.add_argument("--peers", nargs="*", help="default: those that suit each group")
    parser.add_argument("--half", choices=["tune", "held", "both"], default="tune")
    parser.add_argument("--groups", default=",".join(GROUPS), help="separated by commas")
    parser.add_argument("--only", default="", help="problems whose name has this in it")
    parser.add_argument("--seeds", type=int, default=1, help="runs of a problem with noise")
    parser.add_argument("--judged", choices=["best", "incumbent"], default="best")
    parser.add_argument("--version", default="", help="of the methods, in place of a digest")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--nist", type=Path, default=FOLDER, help="folder of NIST's files")
    parser.add_argument("--to-the-end", action="store_true", help="until a method stops itself")
    parser.add_argument("--brief", action="store_true", help="only the summary")
    parser.add_argument("--problems", action="store_true", help="a line for each problem too")
    parser.add_argument("--page", type=Path, help="HTML file to write")
    return parser.parse_args(words)


Runs = dict[str, dict[tuple[str, int], ArenaRun]]


def gather(problems: Sequence[ArenaProblem], options: argparse.Namespace) -> Runs:
    """Every run by method, made or remembered."""
    runs: Runs = defaultdict(dict)
    for group in dict.fromkeys(problem.group for problem in problems):
        members = [problem for problem in problems if problem.group == group]
        methods = methods_of(group, options)
        versions = {
            name: options.version
            if name in options.method and options.version
            else version_of(name)
            for name in methods
        }
        cache, seeds = Cache(options.cache, versions, options.to_the_end), range(options.seeds)
        for run in run_all(members, methods, cache, seeds=seeds, jobs=options.jobs):
            runs[run.method][run.problem, run.seed] = run
    return runs


def methods_of(group: str, options: argparse.Namespace) -> list[str]:
    """The methods asked for, and the peers of a group."""
    peers = peers_of(group) if options.peers is None else options.peers
    return list(dict.fromkeys([*options.method, *peers]))


def show(
    console: Console, half: Half, options: argparse.Namespace
) -> dict[str, dict[str, FloatArray]]:
    """Run and print one half; groups to solve by group and method."""
    groups = options.groups.split(",")
    problems = [p for p in chosen(half, groups, options.nist) if options.only in p.name]
    runs, found = gather(problems, options), {}
    for group in groups:
        members = [problem for problem in problems if problem.group == group]
        if not members:
            continue
        methods = methods_of(group, options)
        found[group] = {m: share_table(members, runs[m], options.judged) for m in methods}
        if not options.brief:
            print_group(console, f"{group}, {half}: {len(members)} problems", found[group])
        ours = {m: runs[m] for m in methods}
        if options.to_the_end:
            print_stops(console, f"{group}, {half}: stops", members, ours)
        if options.problems:
            print_problems(console, members, ours, options.judged)
    for own in options.method:
        print_summary(console, own, {**found, "all": _together(found)})
    for name, done in runs.items():
        solves = sum(run.solves for run in done.values())
        seconds = sum(run.own_seconds for run in done.values())
        console.print(
            f"{name}: {solves} solves, own time {seconds / max(solves, 1) * 1e6:.0f} µs each"
        )
    return found


def _together(found: dict[str, dict[str, FloatArray]]) -> dict[str, FloatArray]:
    """Groups of all methods that ran in every group."""
    common = set.intersection(*(set(tables) for tables in found.values())) if found else set()
    return {m: np.concatenate([tables[m] for tables in found.values()]) for m in common}


def main(words: Sequence[str]) -> None:
    """Run what is missing and print.

    Args:
        words: The command line's.
    """
    options = arguments(words)
    console, begin = Console(width=120), time.perf_counter()
    halves: tuple[Half, ...] = ("tune", "held")
    halves = tuple(half for half in halves if options.half in (half, "both"))
    found = {half: show(console, half, options) for half in halves}
    if options.page is not None:
        write_page(options.page, found)
        console.print(f"written to {options.page}")
    console.print(f"{time.perf_counter() - begin:.0f} s; runs remembered under {options.cache}")
