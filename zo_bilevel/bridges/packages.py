"""Optional packages, imported on first use."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from zo_bilevel.errors import MissingPackageError


def import_optional(module: str, package: str = "", extra: str = "integrations") -> Any:  # noqa: ANN401
    """Import a module of a package that need not be there.

    Args:
        module: Its name.
        package: What to install, where that is called otherwise.
        extra: The extra that brings it.

    Returns:
        The module, without types.

    Raises:
        MissingPackageError: If it is not installed, with what to install.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        name = package or module.partition(".")[0]
        raise MissingPackageError(
            f'this needs {name}: pip install "zo-bilevel[{extra}]" ({error})'
        ) from error
