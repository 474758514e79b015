"""Names of a package that are imported on first use."""

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

IMPORT = re.compile(r"^    from (\S+) import (?:\(\s+)?(\w+) as \2\b", re.MULTILINE)

LazyNames: TypeAlias = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def lazy_names(package: str, *others: str) -> LazyNames:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports its names on first use.

    Which names there are and where they live is read from the package's own source: from the
    imports for type checkers, `from MODULE import NAME as NAME`, so that each is listed once.

    Raises:
        ImportError: If the source is missing, as in a distribution of bytecode alone.
    """
    loader: Any = sys.modules[package].__loader__  # a zip file's too
    source = loader.get_source(package)
    if source is None:
        raise ImportError(f"{package} must come with its source")
    home_of = {name: home for home, name in IMPORT.findall(source)}

    def load(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    names = sorted([*home_of, *others])
    return load, lambda: names, names
