"""`python -m benchmarks.arena`: run, remember, and print the scores."""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.arena.catalogue import GROUPS, chosen
from benchmarks.arena.nist import FOLDER
from benchmarks.arena.problem import FloatArray
from benchmarks.arena.running import ArenaRun, Cache, run_all, version_of
from benchmarks.arena.scores import share_table
from benchmarks.arena.table import print_group, print_summary

PEERS = ("dfols", "dfols-scaled", "trf", "lm")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "zo_bilevel" / "arena"


def arguments() -> argparse.Namespace:
    """The command line's words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", nargs="*", default=["default"], help="the project's, by name")
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--half", choices=["tune", "held", "both"], default="tune")
    parser.add_argument("--groups", default=",".join(GROUPS), help="separated by commas")
    parser.add_argument("--only", default="", help="problems whose name has this in it")
    parser.add_argument("--seeds", type=int, default=1, help="runs of a problem with noise")
    parser.add_argument("--judged", choices=["best", "incumbent"], default="best")
    parser.add_argument("--version", default="", help="of the methods, in place of a digest")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--nist", type=Path, default=FOLDER, help="folder of NIST's files")
    parser.add_argument("--brief", action="store_true", help="only the summary")
    parser.add_argument("--problems", action="store_true", help="a line for each problem")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, then print."""
    options = arguments()
    console, begin = Console(width=110), time.perf_counter()
    half = None if options.half == "both" else options.half
    groups = options.groups.split(",")
    problems = [p for p in chosen(half, groups, options.nist) if options.only in p.name]
    methods = [*options.method, *options.peers]
    versions = {m: (m in options.method and options.version) or version_of(m) for m in methods}
    cache, seeds = Cache(options.cache, versions), range(options.seeds)
    runs: dict[str, dict[tuple[str, int], ArenaRun]] = defaultdict(dict)
    for run in run_all(problems, methods, cache, seeds=seeds, jobs=options.jobs):
        runs[run.method][run.problem, run.seed] = run
    found: dict[str, dict[str, FloatArray]] = {}
    for group in groups:
        members = [problem for problem in problems if problem.group == group]
        if members:
            found[group] = {m: share_table(members, runs[m], options.judged) for m in methods}
            if not options.brief:
                title = f"{group}, {options.half}: {len(members)} problems"
                print_group(console, title, found[group])
    everything = {m: np.concatenate([tables[m] for tables in found.values()]) for m in methods}
    for own in options.method:
        print_summary(console, own, options.peers, {**found, "all": everything})
    for name in methods:
        solves = sum(run.solves for run in runs[name].values())
        own_time = sum(run.own_seconds for run in runs[name].values())
        console.print(f"{name}: {solves} solves, {own_time / max(solves, 1) * 1e6:.0f} µs a solve")
    console.print(f"{time.perf_counter() - begin:.0f} s; runs remembered under {options.cache}")


if __name__ == "__main__":
    main()
