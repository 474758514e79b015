"""What a process that runs tests does beside them."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def _what_lasts_is_not_looked_at_again():
    """Without this every search for garbage walks all that was imported: seconds with torch."""
    gc.freeze()
    yield
    gc.unfreeze()
