"""`zo-bilevel init`: every starter runs as it is, on tiny stand-ins where it needs something."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from zo_bilevel.adapters import __all__ as adapter_names
from zo_bilevel.cli.init import ADAPTERS, PROMPT, starter_text
from zo_bilevel.cli.loading import load_subject
from zo_bilevel.cli.main import main

ROOT = Path(__file__).parents[2]
NEEDS = {
    "command-line": ["jinja2"],
    "http": ["httpx", "tenacity"],
    "fmu": ["fmpy", "pythonfmu"],
    "sklearn": ["sklearn"],
    "linear-program": ["highspy"],
}
NO_KNOWN_ANSWER = ("sklearn", "linear-program", "torch-unroll")


def written(adapter: str, folder: Path) -> Path:
    path = folder / f"{adapter.replace('-', '_')}{'.toml' if adapter == PROMPT else '_problem.py'}"
    answer = CliRunner().invoke(main, ["init", adapter, str(path)])
    assert answer.exit_code == 0, answer.output
    assert str(path) in answer.output
    return path


def loss_in_the_middle(path: Path) -> float:
    arguments = ["run", f"{path}:problem", "--method", "random", "--max-solves", "1", "--json"]
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)["loss"]


class Decay(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["parameters"]
        u = np.exp(-asked["rate"] * np.linspace(0, 1, 20) ** asked["order"])
        content = json.dumps({"result": {"u": u.tolist()}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def stand_in(tmp_path):
    """What a starter needs from outside: a service, a unit."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Decay)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def make(adapter: str, path: Path) -> None:
        if adapter == "http":
            path.write_text(path.read_text().replace(":8000", f":{server.server_port}"))
        if adapter == "fmu":
            from pythonfmu.builder import FmuBuilder

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                FmuBuilder.build_FMU(ROOT / "tests" / "programs" / "spring.py", dest=tmp_path)
            (tmp_path / "Spring.fmu").rename(tmp_path / "model.fmu")

    yield make
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name != PROMPT])
def test_every_starter_runs_and_finds_what_it_looks_for(adapter, tmp_path, stand_in):
    for package in NEEDS.get(adapter, []):
        pytest.importorskip(package, reason=f"{package} is not installed")
    path = written(adapter, tmp_path)
    stand_in(adapter, path)
    ran = subprocess.run(
        [sys.executable, path.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("loss ")
    start = loss_in_the_middle(path) if adapter in NO_KNOWN_ANSWER else 1e-3
    assert float(ran.stdout.split()[1]) < start


def test_the_command_line_finds_the_problem_of_a_starter(tmp_path):
    path = written("function", tmp_path)
    assert load_subject(f"{path}:problem").name == f"{path.name}:problem"
    arguments = ["run", f"{path}:problem", "--max-solves", "20", "--json"]
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 0, answer.output


def test_there_is_a_starter_for_every_adapter():
    texts = "\n".join(starter_text(name) for name in ADAPTERS)
    readers = {name for name in adapter_names if name.startswith("Read")} | {"Run"}
    wanted = {"Function", "BatchedFunction", "CommandLine", "HTTPService", "FMU"}
    wanted |= {"SklearnEstimator", "LinearProgram", "TorchUnroll"}
    assert wanted <= set(adapter_names) - readers
    missing = [name for name in wanted if f"import {name}" not in texts and name not in texts]
    assert not missing


def test_starters_are_written_in_the_style_of_the_project(tmp_path):
    if shutil.which("ruff", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("ruff is not installed")
    for adapter in ADAPTERS:
        written(adapter, tmp_path)
    for command in (["check", "--ignore", "D,ANN,T20,ARG,INP"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml"]
        done = subprocess.run([*ruff, tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_nothing_is_written_over_and_bad_names_are_refused_in_one_line(tmp_path):
    path = written("function", tmp_path)
    path.write_text("mine")
    cases = [
        (["function", str(path)], "is there already; give another FILE"),
        (["function", str(tmp_path / "absent" / "a.py")], "cannot be written: No such file"),
        (["function", str(tmp_path / "a.txt")], r"FILE must end in .py"),
        (["functoin"], "'functoin' is not one of 'function'"),
    ]
    for arguments, message in cases:
        answer = CliRunner().invoke(main, ["init", *arguments])
        assert answer.exit_code == 2
        assert message in answer.output
    assert path.read_text() == "mine"
