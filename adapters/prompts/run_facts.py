"""What the card of a saved prompt says of the run that found it."""

from __future__ import annotations

from typing import Any, Protocol


class RunFacts(Protocol):
    """What `zb.Result` tells of a run."""

    @property
    def phi(self) -> dict[str, Any]:
        """Meta-parameters by name."""

    @property
    def loss(self) -> float:
        """Outer objective there."""


FACTS = (
    "loss",
    "standard_error",
    "interval",
    "draws",
    "solves",
    "cost",
    "seconds",
    "method",
    "seed",
    "stop_reason",
)


def run_facts(result: RunFacts) -> dict[str, Any]:
    """The facts of a run by name, as JSON data."""
    return {name: getattr(result, name) for name in FACTS}
