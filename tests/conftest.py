"""What a process that runs tests does beside them."""

import gc
import signal

import pytest

# a job in the background of a shell ignores Ctrl-C, and so would all that it starts
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def _what_lasts_is_not_looked_at_again():
    """Without this every search for garbage walks all that was imported: seconds with torch."""
    gc.freeze()
    yield
    gc.unfreeze()
