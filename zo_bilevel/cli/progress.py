"""The progress that fits where stderr goes."""

import sys
from functools import partial

import click

from zo_bilevel.run.progress import BarProgress, LineProgress, Progress, SilentProgress


def make_progress(*, is_silent: bool) -> Progress:
    """A bar on a terminal, a few plain lines elsewhere."""
    if is_silent:
        return SilentProgress()
    return BarProgress() if sys.stderr.isatty() else LineProgress(partial(click.echo, err=True))
