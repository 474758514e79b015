"""When a run ends before its budget is spent: the rules that people give, all in one place."""

from dataclasses import dataclass
from typing import final

import numpy as np

from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError

LEAST_AGREEMENT = 0.25
"""Of the actual with the predicted gain: a step that gained less says nothing about what is left
(scipy's least_squares)."""


@final
@dataclass(frozen=True, slots=True)
class StopRules:
    """The rules of one run; `None` is no such rule.

    Args:
        tolerance: The run ends at this loss, or below.
        ftol: It ends when a step as good as predicted changes the loss by less than this share,
            > 0.
        xtol: It ends when a step is shorter than `xtol * (xtol + |phi|)`, > 0, in the Euclidean
            norm of all values of phi.
        patience: It ends after so many solves in a row without improvement, >= 1.
        restarts: Whether the search goes on elsewhere where a local search has ended.

    Raises:
        InputError: If a rule is not what it must be.

    Source:
        ftol and xtol: `scipy.optimize.least_squares`.

    Example:
        >>> StopRules(ftol=1e-3).after_step(2.0, 1.999, 0.9, np.ones(2), np.zeros(2))
        'ftol: a step changed the loss by 0.0005 of it, less than 0.001'
    """

    tolerance: float | None = None
    ftol: float | None = None
    xtol: float | None = None
    patience: int | None = None
    restarts: bool = True

    def __post_init__(self) -> None:
        for name, rule in (("tolerance", ""), ("ftol", "> 0"), ("xtol", "> 0")):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, finite_number(name, value, rule))
        if self.patience is not None:
            object.__setattr__(self, "patience", whole_number("patience", self.patience, least=1))
        if not isinstance(self.restarts, bool | np.bool_):
            raise InputError(f"restarts must be True or False, got {self.restarts!r}")

    @property
    def text(self) -> str | None:
        """All rules but the tolerance, as people give them; `None` where there are none."""
        given = self.of_steps if self.patience is None else [*self.of_steps, "patience"]
        values = ((name, getattr(self, name, None)) for name in given)
        return ", ".join(n if v is None else f"{n}={v:g}" for n, v in values) or None

    @property
    def of_steps(self) -> list[str]:
        """Those given that only methods with steps can keep, by name."""
        given = [name for name in ("ftol", "xtol") if getattr(self, name) is not None]
        return given if self.restarts else [*given, "restarts=False"]

    def after_solve(self, lowest: float, idle: int) -> str:
        """Why the run is over, in words; empty when it is not."""
        if self.tolerance is not None and lowest <= self.tolerance:
            return f"loss {lowest:.3g} reached the tolerance {self.tolerance:g}"
        if self.patience is not None and idle >= self.patience:
            return f"patience: no improvement in {idle} solves"
        return ""

    def after_step(
        self, before: float, after: float, agreement: float, phi: FloatArray, moved: FloatArray
    ) -> str:
        """The same after a step of a method that knows every direction.

        Args:
            before: Loss where it began.
            after: Loss where it led.
            agreement: Actual over predicted gain.
            phi: Where it began, in the units of the parameters, shape `(N,)`.
            moved: The step, likewise.
        """
        gain, length = before - after, float(np.linalg.norm(moved))
        if self.ftol is not None and agreement > LEAST_AGREEMENT and gain < self.ftol * abs(before):
            share = gain / abs(before)
            return f"ftol: a step changed the loss by {share:.3g} of it, less than {self.ftol:g}"
        norm = float(np.linalg.norm(phi))
        if self.xtol is not None and length < self.xtol * (self.xtol + norm):
            return f"xtol: a step of {length:.3g} from a point of norm {norm:.3g}"
        return ""
