"""One self-contained HTML file out of comparisons: no network, no file beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.report.sections import Section, section_of
from zo_bilevel.report.suite import Overview, overview_of
from zo_bilevel.support.errors import InputError, MissingPackageError
from zo_bilevel.support.tables import Grid

REPORT_EXTRA = 'reports need plotly and jinja2: pip install "zo-bilevel[report]"'


def check_report_path(path: str | Path) -> Path:
    """Refuse a report that could not be written, before anything is paid for.

    Raises:
        MissingPackageError: If plotly or jinja2 is not installed.
        InputError: If it does not end in .html, or its folder does not exist.
    """
    path = check_page_path(path)
    check_report_packages()
    return path


def check_page_path(path: str | Path) -> Path:
    """Refuse a page that could not be written.

    Raises:
        InputError: If it does not end in .html, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"report must end in .html, got {str(path)!r}")
    if not path.parent.is_dir():
        raise InputError(f"report must lie in a folder that exists, got {str(path)!r}")
    return path


def check_report_packages() -> None:
    """Look whether everything is there that a report needs.

    Raises:
        MissingPackageError: If plotly or jinja2 is not installed.
    """
    plotly_script()
    environment()


def plotly_script() -> str:
    """The text of plotly.js; `MissingPackageError` if plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingPackageError(REPORT_EXTRA) from error
    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script")


def environment() -> Any:  # noqa: ANN401 - of an optional package
    """The templates of pages; `MissingPackageError` if jinja2 is not installed."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingPackageError(REPORT_EXTRA) from error
    return Environment(
        loader=PackageLoader("zo_bilevel.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_report(
    comparisons: Sequence[Comparison], path: str | Path, *, title: str = "", command: str = ""
) -> Path:
    """Write a report of one comparison, or of a suite of them.

    Args:
        comparisons: At least one, each with at least one run.
        path: Where to; it must end in .html.
        title: Heading; default the problem's name.
        command: Command line that makes the report again; default the comparison's own.

    Raises:
        MissingPackageError: If plotly or jinja2 is not installed.
        InputError: If the path cannot be used, or there is nothing to report.
    """
    path = check_report_path(path)
    path.write_text(render_report(comparisons, title=title, command=command), encoding="utf-8")
    return path


def render_report(
    comparisons: Sequence[Comparison],
    *,
    title: str = "",
    command: str = "",
    live: str = "",
    activity: Sequence[Grid] = (),
) -> str:
    """The report as HTML text.

    Args:
        comparisons: At least one, each with at least one run.
        title: Heading; default the problem's name.
        command: As in `write_report`.
        live: For a page that a server renews: what tells this state from others.
        activity: What goes on at this moment.

    Raises:
        MissingPackageError: If plotly or jinja2 is not installed.
        InputError: If there is nothing to report.
    """
    if not comparisons:
        raise InputError("nothing to report: there is no comparison")
    for found in comparisons:
        if not found.runs:
            raise InputError(f"nothing to report: {found.problem} has no run")
    sections = [
        section_of(found, f"part-{k}", has_picture=len(comparisons) == 1)
        for k, found in enumerate(comparisons)
    ]
    overview = overview_of(comparisons) if len(comparisons) > 1 else None
    names = dict.fromkeys(method for found in comparisons for method in found.methods)
    template = environment().get_template("report.html")
    page: str = template.render(
        title=title or comparisons[0].problem,
        command=command,
        sections=sections,
        overview=overview,
        activity=activity,
        notes=list(dict.fromkeys(note for found in comparisons for note in found.notes)),
        methods=list(names),
        data=_data(sections, overview, list(names)),
        plotly="" if live else plotly_script(),
        live=live,
        created=comparisons[0].facts.created,
    )
    return page


def _data(sections: Sequence[Section], overview: Overview | None, methods: list[str]) -> str:
    """What the page's script draws, as JSON that cannot end the element it stands in."""
    charts: dict[str, Any] = {} if overview is None else dict(overview.charts)
    runs: dict[str, Any] = {}
    for section in sections:
        charts |= section.charts
        runs |= section.curves
    plain = {"methods": methods, "charts": charts, "runs": runs}
    text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
