"""Builds the navigation of the site, and typesets its formulas as MathML: no script, no font."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

PAGES = (
    ("First steps", "index.md"),
    ("Wrap your solver", "wrap-your-solver.md"),
    ("Calibrate a simulator", "calibrate-a-simulator.md"),
    ("Parameters and data", "parameters-and-data.md"),
    ("Constraints", "constraints.md"),
    ("Choosing a method", "choosing-a-method.md"),
    ("Reading the report", "reading-the-report.md"),
    ("Prompts", "prompts.md"),
    ("Training loops", "training-loops.md"),
    ("Clusters", "cluster.md"),
    ("Stores", "store.md"),
    ("How it works", "how-it-works.md"),
    ("Gauss-Newton", "methods/gauss-newton.md"),
    ("Trust region", "methods/trust-region.md"),
    ("Integers and choices", "methods/integers-and-choices.md"),
    ("Fidelity", "methods/fidelity.md"),
    ("Architecture", "architecture.md"),
    ("Next to other tools", "other-tools.md"),
    ("Comparing methods", "comparison.md"),
    ("Benchmarks", "benchmarks.md"),
    ("Decisions", "decisions.md"),
)
REFERENCE = (
    ("Problems", "api/problems.md"),
    ("Methods", "api/methods.md"),
    ("Running", "api/running.md"),
    ("Adapters", "api/adapters.md"),
    ("Testing", "api/testing.md"),
)


FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_page_content(content: str, **_: Any) -> str:  # noqa: ANN401 - mkdocs has no types
    """Called by mkdocs with the HTML of each page."""
    return FORMULA.sub(_typeset, content)


def _typeset(formula: re.Match[str]) -> str:
    display = "inline" if formula[1] == "span" else "block"
    return convert(html.unescape(formula[2]), display=display)


def on_config(config: Any) -> Any:  # noqa: ANN401 - mkdocs has no types for it
    """Called by mkdocs before anything is built."""
    there = Path(config["docs_dir"])
    pages: list[Any] = [{title: page} for title, page in PAGES if (there / page).exists()]
    config["nav"] = [*pages, {"Reference": [{title: page} for title, page in REFERENCE]}]
    return config
