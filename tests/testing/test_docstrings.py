"""The examples in docstrings run, module by module."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import tempfile
from pathlib import Path

import pytest

import zo_bilevel
from zo_bilevel.support.errors import MissingPackageError

FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def has_examples(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None and ">>>" in Path(spec.origin).read_text()


MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(zo_bilevel.__path__, "zo_bilevel.")
    if has_examples(module.name)
)
SLOW = ("zo_bilevel.methods.baselines.botorch", "zo_bilevel.methods.baselines.smac")
"""Importing what they need takes longer than most files of tests."""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODULES],
)
def test_examples_in_docstrings_run(name):
    try:
        module = importlib.import_module(name)
    except (ImportError, MissingPackageError) as error:
        pytest.skip(f"{name} needs a package that is not installed: {error}")
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [found for found in finder.find(module, name) if found.examples]
    assert tests
    for test in tests:
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
        runner.run(test, out=said.append, clear_globs=True)
        text = "".join(said)
        if "MissingPackageError" in text or "ModuleNotFoundError" in text:
            pytest.skip(f"{test.name} needs a package that is not installed")
        assert not runner.failures, text
