"""Puts back what a perverse solver does to the process that it runs in."""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def settings_kept() -> Iterator[None]:
    """Keep the working directory, numpy's settings, the gradient mode and the global generators.

    Example:
        >>> before = os.getcwd()
        >>> with settings_kept():
        ...     os.chdir("/")
        >>> os.getcwd() == before
        True
    """
    folder, plain, legacy = os.getcwd(), random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    mode = torch is None or torch.is_grad_enabled()
    drawn = None if torch is None else torch.get_rng_state()
    try:
        with np.errstate():
            yield
    finally:
        os.chdir(folder)
        random.setstate(plain)
        np.random.set_state(legacy)  # noqa: NPY002
        if torch is not None:
            torch.set_grad_enabled(mode)
            torch.set_rng_state(drawn)
