"""CommandLine: how theta is read from what a program wrote."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from command_programs import PROGRAMS, python

import zo_bilevel as zb
from zo_bilevel.adapters import (
    CommandLine,
    ReadColumns,
    ReadCSV,
    ReadJSON,
    ReadNumpy,
    ReadPattern,
)
from zo_bilevel.support.errors import InputError, SolveError, WrongShapeError

pytestmark = pytest.mark.usefixtures("own_temporary_folder")


AB = zb.Space(a=zb.Real(0, 4), b=zb.Integer(1, 3))


WRITES = {
    "cols.dat": "# x y\n0 1.0D-3\n1 2.5d+00 # end\n\n2 3\n",
    "out.csv": "x, p\n0,1.5\n1,2.5\n",
    "out.json": json.dumps({"result": {"u": [[1, 2], [3, 4]], "s": 5}, "list": [{"v": 6}]}),
}


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        (ReadColumns("cols.dat", columns=1), [1e-3, 2.5, 3.0]),
        (ReadColumns("cols.dat", columns=(1, 0)), [[1e-3, 0], [2.5, 1], [3, 2]]),
        (ReadColumns("cols.dat", columns=[1]), [[1e-3], [2.5], [3]]),
        (ReadColumns("out.csv", skip_rows=1, separator=","), [0, 1.5, 1, 2.5]),
        (ReadCSV("out.csv", columns="p"), [1.5, 2.5]),
        (ReadCSV("out.csv"), [[0, 1.5], [1, 2.5]]),
        (ReadJSON("out.json", key="result.u"), [[1, 2], [3, 4]]),
        (ReadJSON("out.json", key="list.0.v"), 6.0),
        (ReadPattern(r"^(\d+),", "out.csv"), [0, 1]),
        (lambda run: float(run.text("cols.dat").split()[-1]) + run.phi["a"], 10.0),
    ],
)
def test_theta_is_read_from_files(reader, expected):
    code = f"[open(n, 'w').write(t) for n, t in {WRITES!r}.items()]"
    theta = CommandLine(python(code), output=reader)({"a": 7.0})
    np.testing.assert_array_equal(theta, expected)


def test_theta_is_read_from_numpy_files_and_no_pickle_is_loaded():
    save = "import numpy as np; np.save('u.npy', np.eye(2)); np.savez('z.npz', p=np.ones(3), q=2)"
    np.testing.assert_array_equal(
        CommandLine(python(save), output=ReadNumpy("u.npy"))({}), np.eye(2)
    )
    both = CommandLine(python(save), output=ReadNumpy("z.npz"))({})
    assert sorted(both) == ["p", "q"]
    np.testing.assert_array_equal(
        CommandLine(python(save), output=ReadNumpy("z.npz", "p"))({}), 1.0
    )
    evil = "import numpy as np; np.save('u.npy', np.array([print], dtype=object))"
    with pytest.raises(SolveError, match=r"unreadable output: u.npy: .*allow_pickle=False"):
        CommandLine(python(evil), output=ReadNumpy("u.npy"))({})


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (ReadColumns("cols.dat"), r"wrote no file 'cols.dat' \(there is: other.txt, twice"),
        (ReadColumns(), "standard output, line 1: 'banana' is no number"),
        (ReadColumns("other.txt", columns=4), "line 1 has 1 columns, column 4 is wanted"),
        (ReadCSV("other.txt", columns="pp"), "unknown column 'pp'"),
        (ReadCSV("twice.txt"), "twice.txt has several columns 'p'"),
        (ReadCSV("twice.txt", columns="p"), "twice.txt has several columns 'p'"),
        (ReadJSON("twice.json", key="u"), "an object has several keys 'v'"),
        (ReadJSON(), "standard output is no JSON"),
        (ReadPattern(r"x=(\d)"), "no match of"),
        (lambda run: {}["absent"], "cannot be read: KeyError: 'absent'"),
    ],
)
def test_unreadable_output_fails_the_solve_by_name(reader, message):
    code = (
        "print('banana'); open('other.txt', 'w').write('1'); "
        "open('twice.txt', 'w').write('p,q,p\\n1,2,3'); "
        """open('twice.json', 'w').write('{"u": 1, "w": {"v": 1, "v": 2}}')"""
    )
    with pytest.raises(SolveError, match=message):
        CommandLine(python(code), output=reader, keep_failures=0)({})


def test_json_paths_name_what_is_there():
    text = json.dumps({"result": {"w": [1]}, "words": "x", "flag": True, "mixed": [[2], [False]]})
    for key, message in [
        ("result.u", "no 'u' of 'result.u' in an object with 'w'"),
        ("result.w.3", "no '3' of"),
        ("words", "words holds no numbers"),
        ("flag", "flag holds no numbers: true"),
        ("mixed", "mixed holds no numbers"),  # numpy would read 0
    ]:
        with pytest.raises(SolveError, match=message):
            CommandLine(
                ["echo", text.replace("{", "{{").replace("}", "}}")], output=ReadJSON(key=key)
            )({})


@pytest.mark.skipif(shutil.which("gfortran") is None, reason="gfortran is not installed")
def test_a_fortran_program_with_a_namelist_and_columns(tmp_path):
    program = tmp_path / "decay"
    source = str(PROGRAMS / "decay.f90")
    subprocess.run(["gfortran", "-o", program, source], check=True, cwd=tmp_path)
    solver = CommandLine(
        [program],
        files={
            "run.nml": "&run\n rate = {{ rate }}\n start = {{ start }}\n order = {{ order }}\n/\n"
        },
        output=ReadColumns("state.dat", columns=1),
        expected_length=51,
    )
    space = zb.Space(rate=zb.Real(0, 3), start=zb.Log(0.1, 100.0), order=zb.Integer(1, 2))
    problem = zb.Problem(space, solver, zb.SquaredError(np.exp(-np.linspace(0, 1, 51))))
    theta = solver({"rate": 1.0, "start": 1.0, "order": 1})
    np.testing.assert_allclose(theta, np.exp(-np.linspace(0, 1, 51)), rtol=1e-12)
    with pytest.raises(WrongShapeError, match="gave 1 numbers, expected_length=51"):
        solver({"rate": 1.0, "start": 50.0, "order": 1})
    with pytest.raises(SolveError, match="decay exited with status 3"):
        solver({"rate": -1.0, "start": 1.0, "order": 1})
    assert problem.name.startswith("CommandLine(decay)#")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "pressure"}, "columns must be whole numbers >= 0, got 'pressure'"),
        ({"columns": ()}, r"columns must be whole numbers >= 0, got \(\)"),
        ({"columns": [0, -1]}, r"columns must be whole numbers >= 0, got \(0, -1\)"),
        ({"skip_rows": 1.5}, "skip_rows must be a whole number >= 0, got 1.5"),
    ],
)
def test_columns_that_cannot_be_are_refused_before_any_solve(options, message):
    with pytest.raises(InputError, match=message):
        ReadColumns("cols.dat", **options)
