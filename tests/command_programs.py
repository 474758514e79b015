"""Programs that tests start."""

import sys
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"


def python(code: str, *arguments: str) -> list[str]:
    """A command whose braces are no fields."""
    return [sys.executable, "-c", code.replace("{", "{{").replace("}", "}}"), *arguments]
