"""Public names are read from the package's own imports, wherever it lies."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import zo_bilevel as zb

PROGRAM = "import zo_bilevel as zb; print(zb.__file__, len(zb.__all__), zb.InputError.__name__)"


def test_all_names_are_found_and_others_are_refused():
    assert "minimize" in dir(zb)
    with pytest.raises(AttributeError, match="no attribute 'minimise'"):
        _ = zb.minimise


def test_a_zip_file_will_do(tmp_path):
    package = Path(zb.__file__).parent
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as together:
        for file in (package / "__init__.py", *package.glob("support/*.py")):
            together.write(file, Path("zo_bilevel") / file.relative_to(package))
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(archive)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    place, count, name = ran.stdout.split()
    assert place.startswith(str(archive))
    assert (int(count), name) == (len(zb.__all__), "InputError")
