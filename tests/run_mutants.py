"""Count the mutants of `make mutants` that no test noticed; more than one in ten is a failure."""

import json
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
STATISTICS = Path("mutants", "mutmut-cicd-stats.json")
MOST_SURVIVORS = 0.1


def main() -> int:
    subprocess.run([BIN / "mutmut", "export-cicd-stats"], check=True, capture_output=True)
    counts = json.loads(STATISTICS.read_text())
    total, survived = counts["total"], counts["survived"] + counts.get("no_tests", 0)
    print(f"{survived} of {total} mutants survived ({100 * survived / total:.1f} %)")
    subprocess.run([BIN / "mutmut", "results"], check=True)
    return int(total == 0 or survived > MOST_SURVIVORS * total)


if __name__ == "__main__":
    sys.exit(main())
