"""One result as one HTML file: no network, no script, no file beside it."""

import os
from pathlib import Path
from typing import Any

from zo_bilevel.report.figures import check_plot_path
from zo_bilevel.report.page import check_page_path, environment
from zo_bilevel.report.result_figure import MOST_BARS, drawn_result, known_uncertainty
from zo_bilevel.run.confidence import Uncertainty
from zo_bilevel.run.result import Result
from zo_bilevel.support.parameter_text import shown
from zo_bilevel.support.tables import Grid, number


def write_result_page(
    result: Result,
    path: str | os.PathLike[str],
    *,
    x: Any = None,  # noqa: ANN401 - whatever numpy takes
    uncertainty: Uncertainty | None = None,
) -> Path:
    """Write the page; see `Result.to_html`."""
    file = check_result_page(path)
    template = environment().get_template("result.html")
    known = known_uncertainty(result) if uncertainty is None else uncertainty
    page: str = template.render(
        title=f"{result.method}, seed {result.seed}",
        warnings=result.warnings,
        tables=[_parameters(result, known), *_correlations(known), _facts(result)],
        picture=drawn_result(result, x=x, uncertainty=known),
    )
    file.write_text(page, encoding="utf-8")
    return file


def check_result_page(path: str | os.PathLike[str]) -> Path:
    """Refuse a page that could not be written, before anything is paid for.

    Raises:
        MissingPackageError: If matplotlib or jinja2 is not installed.
        InputError: If it does not end in .html, or its folder does not exist.
    """
    file = check_page_path(os.fspath(path))
    check_plot_path(file.with_suffix(".svg"))
    environment()
    return file


def _parameters(result: Result, known: Uncertainty | None) -> Grid:
    if known is not None:
        return known.grid()
    rows = tuple((name, shown(value)) for name, value in result.phi.items())
    return Grid("parameters", ("parameter", "value"), rows)


def _correlations(known: Uncertainty | None) -> list[Grid]:
    if known is None or not 1 < len(known.names) <= MOST_BARS:
        return []
    rows = tuple(
        (name, *(number(value, 2) for value in row))
        for name, row in zip(known.names, known.correlation, strict=True)
    )
    return [Grid("correlations", ("", *known.names), rows)]


def _facts(result: Result) -> Grid:
    failed = ", ".join(f"{count} {status}" for status, count in result.failures.items())
    error = "" if result.standard_error is None else f" ± {number(result.standard_error, 2)}"
    rows = (
        ("loss", number(result.loss, 6) + error),
        ("solves", f"{result.solves} in {result.rounds} rounds, {result.seconds:.2f} s"),
        ("failed solves", failed or "0"),
        ("stopped", result.stop_reason),
    )
    return Grid("run", ("what", "value"), rows, labels=2)
