"""Seconds until `zo-bilevel --help` answers and until the package can be used, best of five."""

import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": "pass",
    "import zo_bilevel": "import zo_bilevel",
    "zo-bilevel --help": "import sys; sys.argv = ['zo-bilevel', '--help'];"
    " from zo_bilevel.cli.main import main; main()",
    "zo_bilevel.minimize": "import zo_bilevel; zo_bilevel.minimize",
    "import numpy": "import numpy",
    "import torch": "import torch",
}


def best_of_five(code):
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        times.append(time.perf_counter() - started)
    return min(times)


def main():
    base = best_of_five("pass")
    for name, code in COMMANDS.items():
        seconds = best_of_five(code)
        print(f"{name:24s} {seconds:6.3f} s  ({seconds / base:5.1f} times an empty Python)")


if __name__ == "__main__":
    main()
