"""A method whose package is not installed: it refuses every problem and says what to install."""

from __future__ import annotations

from typing import final

from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.support.errors import MissingPackageError


@final
class MissingMethod(Method):
    """Stands in a comparison for a method that is not there."""

    def __init__(self, name: str, error: MissingPackageError) -> None:
        self._name, self._error = name, error

    @property
    def name(self) -> str:
        """Name of the method that is missing."""
        return self._name

    def rounds(self, search: Search) -> Rounds:  # noqa: ARG002 - there is nothing to search
        """Refuse with `MissingPackageError`."""
        raise self._error
        yield []
