"""`--dispatch` and `--asynchronous`: solves elsewhere, from the command line."""

import json
import textwrap

import pytest
from click.testing import CliRunner

from zo_bilevel.cli.main import main


@pytest.fixture
def subject(tmp_path):
    path = tmp_path / "elsewhere.py"
    path.write_text(
        textwrap.dedent("""
            import zo_bilevel as zb

            def inner(phi):
                return [phi["a"], phi["a"] ** 2]

            problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), inner, zb.SquaredError([1.5, 2.25]))
        """)
    )
    return f"{path}:problem"


def said(*words):
    answer = CliRunner().invoke(main, list(words))
    return answer.exit_code, answer.output.strip()


def test_slurm_gives_the_numbers_of_this_machine(subject, tmp_path):
    pytest.importorskip("submitit")
    words = ("run", subject, "--max-solves", "2", "--json")
    place = f"slurm:{tmp_path}/jobs,cluster=debug,timeout_min=5"
    (_, here), (code, there) = said(*words), said(*words, "--dispatch", place)
    assert code == 0
    assert json.loads(there)["loss"] == json.loads(here)["loss"]


def test_a_run_without_rounds(subject, tmp_path):
    store = str(tmp_path / "runs.sqlite")
    options = ("--max-solves", "9", "--workers", "2", "--asynchronous", "--store", store)
    code, first = said("run", subject, *options)
    assert code == 0
    assert "stopped" in first
    assert said("show", store, "1", "--json")[1].find('"asynchronous": true') > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dispatch", "slrm:x"], "--dispatch must be one of queue:..., slurm:..., dask:..., ray"),
        (["--dispatch", "queue:"], "--dispatch must be one of"),
        (["--dispatch", "queue:q.sqlite,leases=4"], "unexpected keyword argument 'leases'"),
        (["--dispatch", "queue:q.sqlite,lease_s=0"], "lease_s must be finite and > 0, got 0"),
        (["--dispatch", "queue:q.sqlite", "--timeout", "3"], "--timeout is the workers'"),
        (["--asynchronous", "--method", "scipy:Powell"], "needs whole rounds"),
    ],
)
def test_bad_input_is_refused_by_name(subject, words, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZO_BILEVEL_TOKEN", "sixteen characters")
    code, text = said("run", subject, "--max-solves", "3", *words)
    assert code == 2
    assert message in text


def test_the_password_of_a_database_is_neither_said_nor_kept(subject, monkeypatch, tmp_path):
    monkeypatch.setenv("ZO_BILEVEL_TOKEN", "sixteen characters")
    place = "queue:postgresql://me:hunter2@127.0.0.1:1/x"
    store = str(tmp_path / "runs.sqlite")
    code, text = said("run", subject, "--max-solves", "3", "--store", store, "--dispatch", place)
    assert code != 0
    assert "hunter2" not in text
    assert "127.0.0.1/x" in text
