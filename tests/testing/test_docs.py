"""Every Python block of the documentation runs; the blocks of one page share their names.

`<!-- not run: reason -->` above a block leaves it out; `<!-- needs: a, b -->` where a program or
module that it names is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (not run|needs): ([^>]+) -->\n+)?```python\n(.*?)^```", re.S | re.M)
ELSEWHERE = {
    "cluster.md": (
        ("Client(", "a Dask cluster; tests/test_dispatch_cluster.py runs one"),
        ("ray", "a Ray cluster; tests/test_dispatch_cluster.py runs one"),
    ),
    "comparison.md": (
        ("AskTell(", "a list of calls, not a program; tests/test_integrations.py makes them"),
    ),
}
"""Blocks of pages that carry no marks: what is in the block, and the reason."""
PREAMBLE = """import numpy as np
import zo_bilevel as zb
times = np.linspace(0, 5, 40)
simulate = lambda phi: np.exp(-phi["damping"] * times) * np.cos(phi["frequency"] * times)
space = zb.Space(damping=zb.Log(0.01, 10), frequency=zb.Real(0.5, 5))
problem = zb.Problem(space, simulate, zb.SquaredError(simulate({"damping": 0.3, "frequency": 2})))
"""
FRAGMENTS = ("comparison.md", "store.md")
"""Pages whose blocks are parts of a program: the problem is that of the first page."""
PACKAGES = {"comparison.md": ("plotly", "jinja2", "nevergrad")}
SETTINGS = {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def blocks_of(page: Path) -> list[tuple[int, str, str, str]]:
    """Line, code, reason to leave it out, what it needs."""
    text, found = page.read_text(), []
    for match in BLOCK.finditer(text):
        kind, said, code = match.groups()
        reason = said if kind == "not run" else ""
        for word, why in ELSEWHERE.get(page.name, ()):
            reason = reason or (why if word in code else "")
        line = text.count("\n", 0, match.start(3)) + 1
        found.append((line, code, reason, said if kind == "needs" else ""))
    return found


def is_there(name: str) -> bool:
    return shutil.which(name) is not None or importlib.util.find_spec(name) is not None


def runnable(page: Path) -> str:
    """The page as one program whose line numbers are those of the page."""
    lines: list[str] = []
    for line, code, reason, needs in blocks_of(page):
        absent = [name for name in re.split(r",\s*", needs) if name and not is_there(name)]
        if reason or absent:
            continue
        lines += [""] * (line - 1 - len(lines)) + code.splitlines()
    return "\n".join(lines) + "\n"


def test_every_block_of_every_page_is_found():
    for page in PAGES:
        assert len(blocks_of(page)) == page.read_text().count("```python\n"), page.name


@pytest.mark.parametrize(
    "page", [page for page in PAGES if runnable(page).strip()], ids=lambda page: page.name
)
def test_the_blocks_of_a_page_run(page, tmp_path):
    program = runnable(page)
    for package in PACKAGES.get(page.name, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    for file in ("decay.f90", "aquifer.awk", "oude_korendijk.csv"):
        shutil.copy(ROOT / "examples" / file, tmp_path)
    preamble = "from preamble import *; " if page.name in FRAGMENTS else ""
    (tmp_path / "preamble.py").write_text(PREAMBLE)
    (tmp_path / "page.py").write_text(preamble + program)
    ran = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "page.py"],
        cwd=tmp_path,
        env={**os.environ, **SETTINGS},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, f"{page.name} (line numbers are the page's):\n{ran.stderr[-3000:]}"


def test_examples_that_pages_name_are_there_and_short():
    named = "".join(page.read_text() for page in PAGES)
    for wanted in set(re.findall(r"examples/\w+\.py", named)):
        example = ROOT / wanted
        assert len(example.read_text().splitlines()) <= 80, example.name
    for wanted in re.findall(r"examples/\w+\.\w+", named):
        assert (ROOT / wanted).exists(), wanted


def test_pages_link_to_what_is_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not re.match(r"https?:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_short_and_shows_what_its_first_program_prints(tmp_path):
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 700
    program, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S).groups()
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, **SETTINGS},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == shown
