"""How exactly an inner solver solves: a level that costs less where it is lower."""

from dataclasses import dataclass
from typing import final

from zo_bilevel.support.arguments import finite_number
from zo_bilevel.support.errors import InputError


@final
@dataclass(frozen=True, slots=True)
class Fidelity:
    """A setting of the inner solver that makes solves cheap and inexact, or dear and exact.

    The solver finds it among its values, as `phi[name]`: steps of an integrator, points of a grid,
    epochs, examples. It returns its outputs in the same shape at every level, and its price by
    `WithCost`. The default method then asks for cheap solves first and for full ones where it
    matters. What a run reports is always of the full level, and so is what every other method
    asks for.

    Args:
        name: What the solver calls it; no parameter of the space.
        cheap: Lowest level, > 0.
        full: The level that counts, above `cheap`. Levels are whole numbers where both are.

    Raises:
        InputError: If the name is empty or the levels break their rule.

    Example:
        >>> Fidelity("steps", 10, 1000).levels(factor=5)
        (10, 40, 200, 1000)
    """

    name: str
    cheap: float
    full: float

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"name must be a text, got {self.name!r}")
        for name in ("cheap", "full"):
            value = finite_number(name, getattr(self, name), "> 0")
            object.__setattr__(self, name, int(value) if value == int(value) else value)
        if self.cheap >= self.full:
            raise InputError(f"cheap must be below full, got {self.cheap} and {self.full}")

    def levels(self, factor: float) -> tuple[float, ...]:
        """Levels from cheap to full, each so many times the one before; the first may be nearer.

        Args:
            factor: > 1.
        """
        found, level = [self.full], self.full / factor
        while level > self.cheap * (1.0 + 1e-9):
            found.append(self.rounded(level))
            level /= factor
        return (self.cheap, *reversed(found))

    def rounded(self, level: float) -> float:
        """A level as the solver is given it."""
        is_whole = isinstance(self.cheap, int) and isinstance(self.full, int)
        return max(round(level), int(self.cheap)) if is_whole else level
