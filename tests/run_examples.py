"""Run every script in examples/ as a user would, each in a fresh process and directory."""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
LIMIT_SECONDS = 300


def run(script: Path) -> bool:
    started = time.perf_counter()
    environment = {**os.environ, "MPLBACKEND": "Agg", "ZO_BILEVEL_EXAMPLE_BUDGET": "small"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)],
                cwd=folder,
                env=environment,
                timeout=LIMIT_SECONDS,
                capture_output=True,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"{script.name}: not done after {LIMIT_SECONDS} s", flush=True)
            return False
    verdict = "ok" if done.returncode == 0 else f"exit status {done.returncode}"
    said = "" if done.returncode == 0 else f"\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    print(f"{script.name}: {verdict}, {time.perf_counter() - started:.1f} s{said}", flush=True)
    return done.returncode == 0


def main() -> int:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return 0 if all(list(pool.map(run, EXAMPLES))) else 1


if __name__ == "__main__":
    sys.exit(main())
