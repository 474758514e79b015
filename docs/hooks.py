"""Builds the navigation of the site: pages that other work adds appear when they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGES = (
    ("First steps", "index.md"),
    ("Wrap your solver", "wrap-your-solver.md"),
    ("Choosing a method", "choosing-a-method.md"),
    ("Reading the report", "reading-the-report.md"),
    ("Prompts", "prompts.md"),
    ("Training loops", "training-loops.md"),
    ("Clusters", "cluster.md"),
    ("Stores", "store.md"),
    ("How it works", "how-it-works.md"),
    ("Next to other tools", "other-tools.md"),
    ("Measured comparisons", "comparison.md"),
    ("Decisions", "decisions.md"),
)
REFERENCE = (
    ("Problems", "api/problems.md"),
    ("Methods", "api/methods.md"),
    ("Running", "api/running.md"),
    ("Adapters", "api/adapters.md"),
    ("Testing", "api/testing.md"),
)


def on_config(config: Any) -> Any:  # noqa: ANN401 - mkdocs has no types for it
    """Called by mkdocs before anything is built."""
    there = Path(config["docs_dir"])
    pages: list[Any] = [{title: page} for title, page in PAGES if (there / page).exists()]
    config["nav"] = [*pages, {"Reference": [{title: page} for title, page in REFERENCE]}]
    return config
