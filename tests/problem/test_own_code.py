"""What the user's own code imports and looks up as it runs: followed, or refused by name."""

from __future__ import annotations

import sys

import pytest

import zo_bilevel as zb
from zo_bilevel.problem.solver_identity import solver_identity


def identity(inner):
    problem = zb.Problem(zb.Space(a=zb.Real(0, 10)), inner)
    return solver_identity(inner, problem.name, "1")


def module_in(folder, monkeypatch, name, text):
    """A module of the user's own, as it is after its file was written and loaded afresh."""
    monkeypatch.syspath_prepend(folder)
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    for known in {name, name.partition(".")[0]}:
        monkeypatch.delitem(sys.modules, known, raising=False)
    sys.path_importer_cache.clear()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def importing(statement, value):
    scope = {"__name__": "own.solver", "__package__": "own"}
    exec(f"def solve(phi):\n    {statement}\n    return {value}", scope)
    return scope["solve"]


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("import own.part", "own.part.answer(phi)"),
        ("import own.part as p", "p.answer(phi)"),
        ("from own import part", "part.answer(phi)"),
        ("from own.part import answer", "answer(phi)"),
        ("from .part import answer", "answer(phi)"),
        ("from . import part", "(lambda: part.answer(phi))()"),
    ],
)
def test_modules_that_are_imported_inside_are_followed(tmp_path, monkeypatch, statement, value):
    found = []
    for factor in (2, 3, 2):
        text = f"C = {factor}\ndef answer(phi):\n    return C * phi['a']\n"
        module_in(tmp_path, monkeypatch, "own.part", text)
        found.append(identity(importing(statement, value)))
        sys.modules["own.part"].C = 7
        found.append(identity(importing(statement, value)))
    assert found[0] == found[4] != found[2]
    assert found[1] == found[3] == found[5] != found[0]


def test_what_is_imported_inside_but_is_not_there_or_fails(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    found = identity(importing("import not_there_at_all, this", "phi['a']"))
    assert found == identity(importing("import not_there_at_all, this", "phi['a']"))
    assert "this" not in sys.modules  # no library is loaded for it
    module_in(tmp_path, monkeypatch, "broken", "1 / 0")
    with pytest.raises(zb.InputError, match=r"import of broken fails \(ZeroDivisionError"):
        identity(importing("import broken", "broken.C"))


LOOKUPS = {
    "globals()": 'globals()["np"]',
    "eval()": 'eval("np")',
    "exec()": 'exec("np")',
    "__import__()": '__import__("own_part").C',
    "import_module()": 'importlib.import_module("own_part").C',
    "getenv()": 'os.getenv("C")',
    "os.environ": 'os.environ["C"]',
    "os.environ ": 'os.environ.get("C")',
    "os.environ  ": "(lambda: environ[str(phi)])()",
    "sys.modules": 'sys.modules["own_part"].C',
    "getattr() of the module own_part": 'getattr(own_part, "C")',
    "vars() of the module own_part": 'vars(own_part)["C"]',
}


@pytest.mark.parametrize("place", ["top", "inside"])
@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_by_a_text_are_refused_by_name(tmp_path, monkeypatch, name, place):
    module_in(tmp_path, monkeypatch, "own_part", "C = 1\n")
    imports = "import importlib, os, sys, own_part; from os import environ"
    if place == "inside":
        solve = importing(imports, LOOKUPS[name])
    else:
        solve = importing("pass", LOOKUPS[name])
        exec(imports, solve.__globals__)
    with pytest.raises(zb.InputError, match="solve, which looks a value up by ") as refused:
        identity(solve)
    assert f"looks a value up by {name.strip()}, and no store" in str(refused.value)
    solve.name = "given"
    assert identity(solve) == "given\0001"


@pytest.mark.parametrize(
    "value",
    [
        "np.random.default_rng(getattr(phi, 'a', 0))",
        "getattr(np, 'ones')(3)",
        "phi['model'].eval()",
        "dict(env={**os.environ, 'OMP_NUM_THREADS': '1'})",
        "os.environ.copy()",
        "os.environ.update(OMP_NUM_THREADS='1')",
        "[m for m in phi['model'].modules()]",
    ],
)
def test_what_ordinary_solvers_do_is_not_refused(value):
    assert identity(importing("import os, numpy as np", value))
