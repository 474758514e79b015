"""Several methods on one problem, under the same conditions, seed by seed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from zo_bilevel.comparison.columns import method_table
from zo_bilevel.comparison.provenance import Environment
from zo_bilevel.comparison.statistics import FEWEST_SEEDS
from zo_bilevel.comparison.summaries import MethodSummary, summarize
from zo_bilevel.run.result import Result
from zo_bilevel.run.runs import Run, Target
from zo_bilevel.support.json_data import to_json, to_plain
from zo_bilevel.support.tables import Grid, listed

LUCKY_DRAWS_NOTE = (
    "solves are noisy: solves to the target and ERT count from the first draw below it, in runs "
    "whose final point stands up to fresh solves; they are optimistic, for every method alike"
)


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """What every method found on one problem: one run for each method and seed.

    Args:
        problem: Name of the problem or task.
        methods: Labels, in the order given.
        seeds: Seeds, in the order given.
        max_solves: Solves that a run had.
        runs: One for each method and seed, by seed, then by method. Fewer when interrupted.
        target: What counts as solved, where known.
        tolerance: Loss at which runs were stopped.
        truth: True meta-parameters by name, where known.
        log_parameters: Names of the parameters that are searched on a logarithmic scale.
        round_width: Solves that might run at once.
        dispatcher: What ran the solves, in words.
        is_interrupted: Whether Ctrl-C ended the comparison early.
        size: Number of coordinates N; 0 where not known.
        judge_solves: Solves spent on judging final points, charged to no run.
        facts: When, with which versions, by which command.
        group: Of a suite, the kind of problem that this is.
        notes: What a reader must know besides, each a sentence.
        tables: Further tables of the report.
        best: The result of lowest loss, whose data and fit the report draws; not in `to_dict`.
    """

    problem: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    max_solves: int
    runs: tuple[Run, ...]
    target: Target | None = None
    tolerance: float | None = None
    truth: Mapping[str, Any] | None = None
    log_parameters: tuple[str, ...] = ()
    round_width: int = 1
    dispatcher: str = ""
    is_interrupted: bool = False
    size: int = 0
    judge_solves: int = 0
    facts: Environment = field(default_factory=Environment)
    group: str = ""
    notes: tuple[str, ...] = ()
    tables: tuple[Grid, ...] = ()
    best: Result | None = field(default=None, repr=False, compare=False)

    def runs_of(self, method: str) -> tuple[Run, ...]:
        """The runs of one method, in the order of the seeds.

        Args:
            method: Its label.
        """
        return tuple(run for run in self.runs if run.method == method)

    @property
    def has_lucky_draws(self) -> bool:
        """Whether losses on the way are noisy draws, of which the lowest is the luckiest."""
        return any(
            run.judged_by == "fresh solves" or (run.standard_error or 0.0) > 0.0
            for run in self.runs
            if run.is_counted
        )

    @property
    def seeds_made(self) -> tuple[int, int]:
        """With how many seeds a method was run: the fewest and the most of those that were."""
        counts = Counter(run.method for run in self.runs if run.status != "interrupted")
        return (min(counts.values()), max(counts.values())) if counts else (0, 0)

    def summaries(self) -> tuple[MethodSummary, ...]:
        """One summary for each method that has a run, the best method first.

        Returns:
            Ordered by the median number of solves to the target, then by the expected number,
            then by the median loss; where that is level to ten digits, by the solves spent.
        """
        found = [
            summarize(method, runs, self.max_solves, self.target)
            for method in self.methods
            if (runs := self.runs_of(method))
        ]
        return tuple(sorted(found, key=lambda summary: summary.rank))

    def grid(self) -> Grid:
        """The summary table before it is drawn."""
        fewest, most = self.seeds_made
        seeds = f"{most} seed{'s'[: most - 1]}" if fewest == most else f"{fewest} to {most} seeds"
        title = f"{self.problem}: medians of {seeds}, at most {self.max_solves} solves each"
        return Grid(title, *method_table(self), tuple(self._notes(self.summaries())))

    def _notes(self, summaries: Sequence[MethodSummary]) -> list[str]:
        notes = [f"{s.method}: {error}" for s in summaries for error in s.errors]
        failed = {s.method: s.failures for s in summaries if s.failures}
        if failed:
            counts = [f"{count} of {method}" for method, count in failed.items()]
            notes.append(f"failed solves: {listed(counts)}")
        if note := self.reused_note():
            notes.append(note)
        if self.judge_solves:
            notes.append(f"final points were judged by {self.judge_solves} solves beside the runs")
        if self.has_lucky_draws and self.target is not None:
            notes.append(LUCKY_DRAWS_NOTE)
        if self.is_interrupted:
            total = len(self.methods) * len(self.seeds)
            notes.append(f"interrupted: {len(self.runs)} of {total} runs")
        if self.seeds_made[1] < FEWEST_SEEDS:
            notes.append(f"fewer than {FEWEST_SEEDS} seeds: no conclusion follows")
        elif len(self.methods) > 1 and summaries:
            from zo_bilevel.report.words import conclusion

            notes.append(conclusion(self))
        return notes

    def reused_note(self) -> str:
        """Whose seconds are not those of all their solves, in words; empty where all are."""
        summaries = self.summaries()
        counts = [f"{s.reused} of {s.method}" for s in summaries if not s.is_timed]
        if not counts:
            return ""
        return (
            "seconds in brackets leave out solves that the store already knew, and cannot be "
            f"compared: {listed(counts)}"
        )

    def table(self) -> str:
        """The summary as plain text of at most 100 columns."""
        return self.grid().text()

    def __str__(self) -> str:
        return self.table()

    def to_markdown(self) -> str:
        """The summary as a Markdown table."""
        return self.grid().markdown()

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data: settings, summaries, every run with its curve."""
        plain: dict[str, Any] = to_plain(replace(self, best=None))
        del plain["best"]
        runs = plain.pop("runs")
        return {**plain, "summaries": to_plain(self.summaries()), "runs": runs}

    def to_json(self) -> str:
        """Everything, as one JSON document; numbers that are not finite are null."""
        return to_json(self.to_dict())

    def plot(self, path: str | Path) -> Path:
        """Draw loss against solves for every method, median and quartiles, to a file.

        Args:
            path: Where to; the suffix tells the format (png, svg, pdf).

        Returns:
            The path.

        Raises:
            MissingPackageError: If matplotlib is not installed.
            InputError: If the suffix is no known format, or there is nothing to draw.
        """
        from zo_bilevel.report.figures import plot_comparison

        return plot_comparison(self, path)

    def to_html(self, path: str | Path) -> Path:
        """Write a report: one file that needs no network, with figures, tables and every run.

        Args:
            path: Where to; it must end in .html and its folder must exist.

        Returns:
            The path.

        Raises:
            MissingPackageError: If plotly or jinja2 is not installed.
            InputError: If the path cannot be used, or there is no run.
        """
        from zo_bilevel.report.page import write_report

        return write_report([self], path)
