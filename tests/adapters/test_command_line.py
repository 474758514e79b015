"""CommandLine: what a program is given, how theta is read, what is refused before a solve."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from command_programs import PROGRAMS, python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zo_bilevel as zb
from zo_bilevel.adapters import (
    CommandLine,
    ReadColumns,
    ReadPattern,
)
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import InputError

pytestmark = pytest.mark.usefixtures("own_temporary_folder")
SHOW = [sys.executable, "-I", "-S", str(PROGRAMS / "show_arguments.py")]
AB = zb.Space(a=zb.Real(0, 4), b=zb.Integer(1, 3))


def left_in(root):
    """All there is but the empty directories that wait for the next solve."""
    return [
        p
        for p in root.rglob("*")
        if not re.fullmatch(r"zo-bilevel-solve-\w+(/work)?", inside(p, root))
    ]


def inside(path, root):
    return str(path.relative_to(root))


@pytest.fixture
def show(tmp_path):
    """A program's own account of what it was given."""
    seen = []

    def reader(run):
        seen.append(json.loads(run.file("given.json").read_text()))
        return 1.0

    def call(arguments, phi, **options):
        CommandLine([*SHOW, *arguments], output=reader, folder=tmp_path, **options)(phi)
        assert left_in(tmp_path) == []
        return seen[-1]

    return call


def test_values_become_arguments_that_read_back_to_the_last_bit(show):
    values = {"a": 0.1 + 0.2, "big": 1e308, "k": 3, "f": np.array([1 / 3, -2.0])}
    got = show(["{a}", "x={big}", "{k:03d}", "{f}", "{{literal}}"], values)["arguments"]
    assert float(got[0]) == values["a"]
    assert got[1:3] == ["x=1e+308", "003"]
    assert [float(part) for part in got[3].split(",")] == values["f"].tolist()
    assert got[4] == "{literal}"


def test_each_solve_has_an_empty_directory_one_thread_and_its_standard_input(show, tmp_path):
    options = {"standard_input": "a={{ a }}\n", "environment": {"OTHER": "x"}}
    first = show(["x"], {"a": 0.5}, **options)
    assert first["folder"].startswith(str(tmp_path))
    assert first["threads"] == "1"
    assert first["stdin"] == "a=0.5\n"
    assert show(["x"], {"a": 0.5}, threads=3)["threads"] == "3"


def test_a_seed_is_asked_for_only_by_a_seed_field():
    assert takes_seed(CommandLine(["echo", "{a}", "{seed}"]))
    assert not takes_seed(CommandLine(["echo", "{a}"]))
    np.testing.assert_array_equal(CommandLine(["echo", "{seed}"])({}, seed=41), [41.0])
    named = CommandLine(["echo", "{seed}"])
    zb.Problem(zb.Space(seed=zb.Real(0, 1)), named)
    np.testing.assert_array_equal(named({"seed": 0.5}, seed=41), [0.5])


def test_templates_get_lists_and_refuse_unknown_names(tmp_path):
    text = "{% for value in f %}{{ value }}\n{% endfor %}{{ phi['a'] }}\n"
    solver = CommandLine(["cat", "sub/in.txt"], files={"sub/in.txt": text}, folder=tmp_path)
    np.testing.assert_array_equal(solver({"f": np.array([0.1, 2.0]), "a": 3.0}), [0.1, 2.0, 3.0])
    template = tmp_path / "in.j2"
    template.write_text("{{ a }}")
    solver = CommandLine(["cat", "in.txt"], files={"in.txt": template})
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(solver))({"a": 7.0}), [7.0])
    with pytest.raises(InputError, match=r"file 'in\.txt', line 1"):
        CommandLine(["cat"], files={"in.txt": "{{ a"})
    with pytest.raises(InputError, match=r"template of file 'in\.txt' cannot be read"):
        CommandLine(["cat"], files={"in.txt": tmp_path / "absent"})


def test_input_files_are_copies(tmp_path):
    mesh = tmp_path / "mesh.dat"
    mesh.write_text("1 2 3")
    code = "print(open('mesh.dat').read()); open('mesh.dat', 'w').write('spoilt')"
    np.testing.assert_array_equal(CommandLine(python(code), inputs=[mesh])({}), [1, 2, 3])
    assert mesh.read_text() == "1 2 3"
    with pytest.raises(InputError, match="there is no file"):
        CommandLine(["true"], inputs=[tmp_path / "absent"])
    with pytest.raises(InputError, match=r"'mesh\.dat' is given twice"):
        CommandLine(["true"], inputs=[mesh], files={"mesh.dat": ""})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CommandLine("ls -l"), "there is no shell; got 'ls -l'"),
        (lambda: CommandLine([]), "must begin with a program"),
        (lambda: CommandLine(["a\0b"]), "without zero bytes"),
        (lambda: CommandLine(["{a}", "x"]), "the program may hold no field"),
        (lambda: CommandLine(["echo", "{a.__class__!r}"]), "a field is {name}"),
        (lambda: CommandLine(["echo", "{a"]), "write {{ and }}"),
        (lambda: CommandLine(["echo", "{}"]), "a field is {name}"),
        (lambda: CommandLine(["cat"], files={"../x": ""}), "inside the directory"),
        (lambda: CommandLine(["cat"], files={"/tmp/x": ""}), "inside the directory"),
        (lambda: ReadColumns("../../etc/passwd"), "inside the directory"),
        (lambda: ReadPattern("no group"), "must have one group, got 0"),
        (lambda: ReadPattern("("), "unterminated"),
        (lambda: CommandLine(["x"], timeout_s=0), "timeout_s must be finite and > 0, got 0"),
        (lambda: CommandLine(["x"], threads=0), "threads must be a whole number >= 1"),
        (lambda: CommandLine(["x"], expected_length=1.5), "expected_length must be"),
        (lambda: CommandLine(["x"], output=3), "output must be a reader"),
        (lambda: CommandLine(["x"], environment={"A B": "c"}), "names like MY_VARIABLE"),
        (lambda: CommandLine(["x"], required_output="("), "required_output must be a regular"),
        (lambda: CommandLine(["x"], success_statuses=()), "success_statuses must be"),
        (lambda: CommandLine(["x"], folder="/absent"), "existing directory, got '/absent'"),
        (lambda: CommandLine(["x"], keep_failures=-1), "keep_failures must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (CommandLine(["no-such-program", "{a}", "{b}"]), "'no-such-program' is not on the PATH"),
        (CommandLine(["/etc/passwd", "{a}", "{b}"]), "cannot be executed"),
        (CommandLine(["echo", "{a}", "{bb}"]), "unknown parameter in a field of '{bb}'.*: 'bb'"),
        (CommandLine(["awk", "{print}", "{a}", "{b}"]), r"are written {{ and }}\): 'print'"),
        (CommandLine(["echo", "{a}"]), "parameters without effect: b; no field"),
        (CommandLine(["echo", "{a}"], files={"x": "{{ c }}"}), "in a field of 'x': 'c'"),
        (CommandLine(["echo", "{a:d}", "{b}"]), "'{a:d}' cannot be filled in .* format code 'd'"),
        (CommandLine(["echo", "{b}"], files={"x": "{{ a.foo }}"}), "'x' cannot be filled in"),
        (
            CommandLine(["echo", "{b}"], files={"x": "{{ '%.9f' | format(a) | width(8) }}"}),
            "'x' cannot be filled in with the middle of the space: a value: '2.0+' does not fit",
        ),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_the_first_solve(solver, message):
    with pytest.raises(InputError, match=message):
        zb.Problem(AB, solver)


def test_options_that_are_no_text_are_refused_before_the_first_solve():
    for option in ("a\0b", "\ud800"):
        with pytest.raises(InputError, match=r"option .* of parameter 'kind' cannot be given"):
            zb.Problem(zb.Space(kind=zb.Choice(["x", option])), CommandLine(["echo", "{kind}"]))


def test_names_in_a_store_tell_commands_apart_and_hold_no_secret(tmp_path):
    secret = {"environment": {"TOKEN": "hunter2secret"}}
    solvers = [
        CommandLine(["echo", "{a}"]),
        CommandLine(["echo", "{a}"], output=ReadPattern("(.)")),
        CommandLine(["echo", "{a}"], files={"x": "1"}),
        CommandLine(["echo", "{a}"], files={"x": "2"}),
        CommandLine(["echo", "{a}"], **secret),
    ]
    names = {zb.Problem(zb.Space(a=zb.Real(0, 1)), solver).name for solver in solvers}
    assert len(names) == len(solvers)
    assert "hunter2" not in str(names) + repr(solvers)
    again = CommandLine(["echo", "{a}"], folder=tmp_path, timeout_s=3)
    assert again.name == solvers[0].name


nasty = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40) | (
    st.sampled_from(
        [
            *("", "; touch pwned", "$(touch pwned)", "`touch pwned`", "| tee pwned", "> pwned"),
            *("../../pwned", "{{ 7 * 7 }}", "{a}", "%s", "\n.include /etc/passwd", "'\"\\", "~"),
            *("-rf /", "*", "&& true", "\t", "\r\n", "\u202e", "1e308"),
        ]
    )
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=nasty, value=st.floats(allow_nan=False, allow_infinity=False))
def test_no_value_is_executed_or_leaves_the_directory(text, value, tmp_path):
    root = tmp_path
    seen = []

    def reader(run):
        seen.append(json.loads(run.file("given.json").read_text()))
        assert run.text("in.txt") == f"{text}|{value}".replace("\r\n", "\n").replace("\r", "\n")
        assert sorted(p.name for p in run.folder.iterdir()) == ["given.json", "in.txt"]
        return 1.0

    solver = CommandLine(
        [*SHOW, "{text}", "v={value}"],
        files={"in.txt": "{{ text }}|{{ value }}"},
        standard_input="{{ text }}",
        output=reader,
        folder=root,
        keep_failures=0,
    )
    zb.Problem(zb.Space(text=zb.Choice([text, "other"]), value=zb.Real(0, 1)), solver) if (
        text != "other"
    ) else None
    solver({"text": text, "value": value})
    assert seen[0]["arguments"] == [text, f"v={value}"]
    assert float(seen[0]["arguments"][1][2:]) == value
    assert seen[0]["stdin"] == text
    assert left_in(root) == []


def test_solves_in_threads_do_not_meet():
    solver = CommandLine(["sh", "-c", 'echo "$1" > x; sleep 0.05; cat x', "sh", "{a}"])
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda k: solver({"a": float(k)}).item(), range(24)))
    assert got == [float(k) for k in range(24)]


def test_a_relative_program_is_found_from_the_current_directory(tmp_path, monkeypatch):
    script = tmp_path / "solve.sh"
    script.write_text("#!/bin/sh\necho $1\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(CommandLine(["./solve.sh", "{a}"])({"a": 2.0}), [2.0])
    assert sorted(os.listdir(tmp_path)) == ["solve.sh"]
