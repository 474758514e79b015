"""Optional packages, imported on first use."""

import importlib
import sys
import warnings
from typing import Any

from zo_bilevel.support.errors import MissingPackageError


def import_optional(module: str, owner: str, extra: str, package: str = "") -> Any:  # noqa: ANN401
    """Import a module of a package that need not be there.

    Raises:
        MissingPackageError: If it is not installed, naming the package and the extra.

    Example:
        >>> import_optional("json", "an example", "none").__name__
        'json'
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        name = package or module.partition(".")[0]
        raise MissingPackageError(
            f'{owner} needs the package {name}: pip install "zo-bilevel[{extra}]" ({error})'
        ) from error


def loaded(module: str) -> Any:  # noqa: ANN401 - a module, without types
    """A module if somebody has imported it; `None` also while another thread still does.

    Example:
        >>> loaded("json").__name__, loaded("no_such_module")
        ('json', None)
    """
    found = sys.modules.get(module)
    is_partial = getattr(getattr(found, "__spec__", None), "_initializing", False)
    return None if is_partial else found
