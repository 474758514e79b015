"""`zo-bilevel demo`: recover the coefficient of three equations, next to what others find."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import click

from zo_bilevel.cli.dispatch import dispatcher_of
from zo_bilevel.cli.options import INTERRUPTED_EXIT, POSITIVE
from zo_bilevel.cli.progress import make_progress
from zo_bilevel.run.progress import Progress
from zo_bilevel.support.tables import Grid, percent, spread, wrapped

if TYPE_CHECKING:
    from zo_bilevel.comparison.comparison import Comparison
    from zo_bilevel.comparison.summaries import Reached
    from zo_bilevel.problem.task import Task

DEMO_TASKS = ("burgers", "allen-cahn", "kdv")
DEFAULT_METHOD = "default"
DEMO_METHODS = (
    DEFAULT_METHOD,
    "zo-adam",
    "nevergrad:CMA",
    "nevergrad:OnePlusOne",
    "nevergrad:Cobyla",
)


@click.command("demo")
@click.option("--seeds", default="5", help="A count (5 means 0 to 4) or a list (3,7,9).")
@click.option("--max-solves", type=POSITIVE, default=80, help="Solves a run may spend.")
@click.option("--methods", "names", default=",".join(DEMO_METHODS), help="Separated by commas.")
@click.option("--workers", type=POSITIVE, help="Equations at once; default one for each core.")
@click.option("--plot", default="demo.png", metavar="FILE.png", help="Where the picture goes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, no progress.")
@click.pass_context
def demo_command(
    context: click.Context,
    /,
    seeds: str,
    max_solves: int,
    names: str,
    workers: int | None,
    plot: str,
    as_json: bool,
) -> None:
    """Recover the coefficient nu of three equations from 64 measurements each.

    The solver is only ever run. Starts are drawn from the range of the paper that published the
    problems (arXiv 2406.14095); every method has the same starts and the same number of solves.
    """
    from joblib import cpu_count

    from zo_bilevel import tasks
    from zo_bilevel.cli.loading import parse_seeds
    from zo_bilevel.report.figures import check_plot_path
    from zo_bilevel.support.json_data import to_json

    path, numbers = check_plot_path(plot), parse_seeds(seeds)
    known = [tasks.load(name) for name in DEMO_TASKS]
    settings = _Settings(max_solves, workers or min(len(DEMO_TASKS), cpu_count()))
    with make_progress(is_silent=as_json) as progress:
        found = _compare_all(known, names, numbers, settings, progress)
    if not found:
        raise KeyboardInterrupt
    if as_json:
        click.echo(to_json({c.problem: c.to_dict() for c in found}))
    else:
        click.echo(demo_grid(known, found).text())
        click.echo(f"\n{summary_sentence(found)}")
    if any(run.improvements for comparison in found for run in comparison.runs):
        click.echo(f"picture: {_draw(found, path)}", err=as_json)
    if len(found) < len(known) or any(comparison.is_interrupted for comparison in found):
        context.exit(INTERRUPTED_EXIT)


def _compare_all(
    tasks: list[Task], names: str, seeds: tuple[int, ...], settings: _Settings, progress: Progress
) -> list[Comparison]:
    """One comparison for each task, several at once; after Ctrl-C what there is until then."""
    from zo_bilevel.cli.compare import follow, methods_from_names
    from zo_bilevel.comparison.compare import compare

    parts = _Parts(progress, [task.name for task in tasks])
    labels = list(methods_from_names(names))

    def compare_one(index: int) -> Comparison:
        methods = methods_from_names(names)
        with dispatcher_of(1, is_process=settings.workers > 1) as dispatcher:
            return compare(
                tasks[index],
                methods,
                max_solves=settings.max_solves,
                seeds=seeds,
                dispatcher=dispatcher,
                callback=follow(parts.part(index), labels, seeds, settings.max_solves),
            )

    with ThreadPoolExecutor(settings.workers) as pool:
        # the last task is the dearest: it goes first
        futures = [pool.submit(compare_one, index) for index in reversed(range(len(tasks)))]
        try:
            return [future.result() for future in reversed(futures)]
        except KeyboardInterrupt:
            parts.stop()
            return [future.result() for future in reversed(futures) if not future.cancel()]
        finally:
            parts.stop()


@final
@dataclass(frozen=True, slots=True)
class _Settings:
    max_solves: int
    workers: int


@final
class _Parts:
    """The progress of several comparisons as one, and the way to stop them all."""

    def __init__(self, whole: Progress, names: list[str]) -> None:
        self.whole, self.names = whole, names
        self._shares = [0.0] * len(names)
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def stop(self) -> None:
        """Make every comparison end at its next solve, as by Ctrl-C."""
        self._stopped.set()

    def part(self, index: int) -> Progress:
        """The progress of one of them."""
        return _Part(self, index)

    def update(self, index: int, share: float, text: str, loss: float) -> None:
        """Take note of one solve of one of them."""
        if self._stopped.is_set():
            raise KeyboardInterrupt  # Ctrl-C reaches the main thread only
        with self._lock:
            self._shares[index] = share
            done = sum(self._shares) / len(self._shares)
            self.whole.update(done, f"{self.names[index]}, {text}", loss)


@final
class _Part(Progress):
    def __init__(self, parts: _Parts, index: int) -> None:
        self._parts, self._index = parts, index

    def update(self, share: float, text: str, loss: float) -> None:
        self._parts.update(self._index, share, text, loss)


def demo_grid(tasks: list[Task], comparisons: list[Comparison]) -> Grid:
    """The table of the demo: for each equation every method, then the paper."""
    rows: list[tuple[str, ...]] = []
    notes: dict[str, None] = {}
    known = {task.name: task for task in tasks}
    for comparison in comparisons:
        task = known[comparison.problem]
        rows += _method_rows(comparison, notes)
        spent = f"in {task.published['solves']:,.0f}" if "solves" in task.published else "-"
        rows.append((task.name, "the paper", percent(task.target_error), "-", spent))
    first = comparisons[0]
    title = (
        f"nu recovered from 64 measurements: medians of {len(first.seeds)} starts, "
        f"at most {first.max_solves} solves each"
    )
    header = ("equation", "method", "error of nu", "quartiles", "solves to the\npaper's error")
    return Grid(title, header, tuple(rows), tuple(notes), labels=2)


def _method_rows(comparison: Comparison, notes: dict[str, None]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for summary in comparison.summaries():
        error = summary.relative_error
        cells = (
            ("-", "-")
            if error is None
            else (percent(error[1]), spread(error[0], error[2], "percent"))
        )
        rows.append((comparison.problem, summary.method, *cells, str(summary.to_target or "-")))
        notes.update(dict.fromkeys(f"{summary.method}: {text}" for text in summary.errors))
    return rows


def summary_sentence(comparisons: list[Comparison]) -> str:
    """What the demo showed, in words, from its numbers alone."""
    if not comparisons or any(comparison.is_interrupted for comparison in comparisons):
        return "Interrupted: nothing follows from this."
    methods = dict.fromkeys(method for c in comparisons for method in c.methods)
    reached = {m: r for m in methods if (r := _over_all(comparisons, m)) and r.counts}
    ranked = sorted(reached, key=lambda m: (-reached[m].reached, reached[m].median))
    ours = DEFAULT_METHOD if DEFAULT_METHOD in reached else next(iter(ranked), None)
    if ours is None:
        return "Every method was refused: nothing follows from this."
    words = [
        f"With at most {comparisons[0].max_solves} solves, {ours} came within the paper's error "
        f"of nu in {_in_words(reached[ours])}"
    ]
    others = [method for method in ranked if method != ours]
    if others:
        words.append(f"the best of the others, {others[0]}, in {_in_words(reached[others[0]])}")
    return "\n".join(wrapped("; ".join(words) + "."))


def _over_all(comparisons: list[Comparison], method: str) -> Reached | None:
    """How soon a method reached the targets of all comparisons; nothing where it was refused."""
    from zo_bilevel.comparison.summaries import Reached

    found = [s.to_target for c in comparisons for s in c.summaries() if s.method == method]
    if any(part is None for part in found):
        return None
    counts = tuple(count for part in found if part is not None for count in part.counts)
    return Reached(counts, comparisons[0].max_solves)


def _in_words(reached: Reached) -> str:
    share = f"{reached.reached} of {len(reached.counts)} runs"
    if math.isfinite(reached.median):
        return f"{share} (median {reached.median:g} solves)"
    return share


def _draw(comparisons: list[Comparison], path: Path) -> Path:
    from zo_bilevel.report.figures import DOTS_PER_INCH, add_legend, draw_error, make_figure

    title = "Error of the coefficient found (median and quartiles over the starts)"
    figure, panels = make_figure(len(comparisons), title)
    for panel, comparison in zip(panels, comparisons, strict=True):
        draw_error(panel, comparison, target="the paper's error")
        panel.set_title(comparison.problem)
        panel.set_ylabel("")
    panels[0].set_ylabel("relative error of nu, %")
    add_legend(figure, panels[0])
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path
