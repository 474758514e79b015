"""Judge methods on problems that nobody tuned on.

python -m benchmarks.arena --half tune                         # vectors
python -m benchmarks.arena --suite bbob --size 5 --methods default,lq-cma
"""

from __future__ import annotations

import argparse

from benchmarks.arena import scalar_main, vector_main


def main() -> None:
    """The command; each suite has options of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arena", add_help=False)
    parser.add_argument("--suite", choices=("vectors", *scalar_main.SUITES), default="vectors")
    options, words = parser.parse_known_args()
    if options.suite == "vectors":
        vector_main.main(words)
    else:
        scalar_main.main(options.suite, words)


if __name__ == "__main__":
    main()
