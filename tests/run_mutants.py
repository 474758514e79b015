"""Change code where a wrong factor costs most; count the changes that no unit test notices.

A share of the changes of each place is drawn, the same ones every time; `--share 1` tries all.
More than one in ten unnoticed is a failure. `mutmut show NAME` shows a change.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path

MUTMUT = Path(sys.executable).parent / "mutmut"
SMALLEST_PLACE = "zo_bilevel.store.solve_keys.*"
"""Tried whole and first, which makes the changes of all places."""
SURVIVED, WITHOUT_TESTS = 0, 33
"""Exit codes of the tests of a change, as mutmut keeps them."""
MOST_SURVIVORS = 0.1
# plugins that these tests do not need would take a third of each start
SETTINGS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout"}


def places() -> dict[str, dict[str, int | None]]:
    """For each file the exit code of each of its changes, `None` where it was not tried."""
    files = sorted(Path("mutants/zo_bilevel").rglob("*.meta"))
    codes = {file: json.loads(file.read_text())["exit_code_by_key"] for file in files}
    return {str(file)[len("mutants/") : -len(".meta")]: of for file, of in codes.items() if of}


def drawn(names: list[str], share: float) -> list[str]:
    """A share of the changes of a place, at least ten."""
    count = min(len(names), max(10, round(share * len(names))))
    return random.Random(0).sample(sorted(names), count)


def run(*names: str) -> None:
    command, settings = [MUTMUT, "run", *names], {**os.environ, **SETTINGS}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.25)
    share = parser.parse_args().share
    run(SMALLEST_PLACE)
    run(*[name for changes in places().values() for name in drawn(list(changes), share)])
    survivors, total = [], 0
    for place, changes in places().items():
        tried = {name: code for name, code in changes.items() if code is not None}
        lost = [name for name, code in tried.items() if code in (SURVIVED, WITHOUT_TESTS)]
        print(f"{place}: {len(lost)} unnoticed of {len(tried)} tried, {len(changes)} there are")
        survivors, total = survivors + lost, total + len(tried)
    print(f"unnoticed: {len(survivors)} of {total}", *survivors, sep="\n    ")
    return int(total == 0 or len(survivors) > MOST_SURVIVORS * total)


if __name__ == "__main__":
    sys.exit(main())
