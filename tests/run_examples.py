"""Run every script in examples/ as a user would, each in a fresh process and directory."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
LIMIT_SECONDS = 300


def main() -> int:
    failed = []
    environment = {**os.environ, "MPLBACKEND": "Agg", "ZO_BILEVEL_EXAMPLE_BUDGET": "small"}
    for script in EXAMPLES:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)],
                cwd=folder,
                env=environment,
                timeout=LIMIT_SECONDS,
                capture_output=True,
                text=True,
                check=False,
            )
        verdict = "ok" if done.returncode == 0 else f"exit status {done.returncode}"
        print(f"{script.name}: {verdict}, {time.perf_counter() - started:.1f} s", flush=True)
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-4000:], sep="\n")
            failed.append(script.name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
