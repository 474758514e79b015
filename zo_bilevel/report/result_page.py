"""One result as one HTML file: no network, no script, no file beside it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zo_bilevel.report.figures import check_plot_path
from zo_bilevel.report.page import check_page_path, environment
from zo_bilevel.report.result_figure import MOST_BARS, drawn_result, known_uncertainty
from zo_bilevel.run.confidence import Uncertainty
from zo_bilevel.run.result import Result
from zo_bilevel.support.intervals import mean_in_words
from zo_bilevel.support.tables import Grid, number, shown


def write_result_page(
    result: Result,
    path: str | os.PathLike[str],
    *,
    x: Any = None,  # noqa: ANN401 - whatever numpy takes
    uncertainty: Uncertainty | None = None,
) -> Path:
    """Write the page; see `Result.to_html`."""
    file = check_result_page(path)
    known = known_uncertainty(result) if uncertainty is None else uncertainty
    return write_page(
        file,
        title=f"{result.method}, seed {result.seed}",
        warnings=result.warnings,
        tables=[_parameters(result, known), *_correlations(known), _facts(result)],
        picture=drawn_result(result, x=x, uncertainty=known),
    )


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    warnings: Sequence[str],
    tables: Sequence[Grid],
    texts: Mapping[str, str] | None = None,
    picture: str = "",
) -> Path:
    """Write a page of tables, the first one on top.

    Args:
        path: Where to.
        title: Heading.
        warnings: What a reader must know first.
        tables: At least one.
        texts: Texts to show as they stand, by their headings.
        picture: An SVG file in base64, below the first table.
    """
    file, template = Path(path), environment().get_template("result.html")
    page = template.render(
        title=title, warnings=warnings, tables=tables, texts=texts or {}, picture=picture
    )
    file.write_text(page, encoding="utf-8")
    return file


def check_page(path: str | os.PathLike[str]) -> Path:
    """Refuse a page without a picture that could not be written; raises as the next one."""
    file = check_page_path(os.fspath(path))
    environment()
    return file


def check_result_page(path: str | os.PathLike[str]) -> Path:
    """Refuse a page that could not be written, before anything is paid for.

    Raises:
        MissingPackageError: If matplotlib or jinja2 is not installed.
        InputError: If it does not end in .html, or its folder does not exist.
    """
    file = check_page(path)
    check_plot_path(file.with_suffix(".svg"))
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
    rows = (
        ("loss", mean_in_words(result.loss, result.interval, result.draws)),
        ("solves", f"{result.solves} in {result.rounds} rounds, {result.seconds:.2f} s"),
        ("failed solves", failed or "0"),
        ("stopped", result.stop_reason),
    )
    return Grid("run", ("what", "value"), rows, labels=2)
