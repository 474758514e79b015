"""Hundreds of vector problems, split in two halves, on which a method is judged against peers.

    python -m benchmarks.arena --method default --half tune

One idea a file: `problem` says what a problem is, `catalogue` lists all of them, `peers` are the
methods of others, `running` runs and remembers, `scores` counts, `page` draws.
"""
