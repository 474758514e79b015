"""Files of people who use the command line."""

import shutil
from pathlib import Path

import pytest

DECAY_FILE = Path(__file__).parents[1] / "programs" / "decay_file.py"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A person's own file, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DECAY_FILE, tmp_path / "mine.py")
    return "mine.py"
