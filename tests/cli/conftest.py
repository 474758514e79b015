"""Files of people who use the command line."""

import json
import shutil
from pathlib import Path

import pytest
from command_calls import RUN, call

DECAY_FILE = Path(__file__).parents[1] / "programs" / "decay_file.py"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A person's own file, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DECAY_FILE, tmp_path / "mine.py")
    return "mine.py"


@pytest.fixture
def stored(program):
    """A store with one finished run, and what the command printed."""
    answer = call(*RUN, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)
