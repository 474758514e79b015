"""ES-MDA: an ensemble smoother that assimilates the same target several times."""

from typing import Any, final

import numpy as np

from zo_bilevel.methods.baselines.failure_values import residuals_of
from zo_bilevel.methods.baselines.solves import GiveUpError, Solves
from zo_bilevel.methods.baselines.threaded import Baseline
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray

SIZE_WITHOUT_BUDGET = 50
SMALLEST_ENSEMBLE = 4
INFLATION_FALL = 4.0


@final
class ESMDA(Baseline):
    """Ensemble smoother with multiple data assimilation, one round an assimilation.

    The ensemble is drawn from the prior around the start, which is its first member; after the
    last assimilation its mean is solved, and the search ends. Failed members are dropped.

    ES-MDA wants an error of the observations even where there is none: it is taken as
    `observation_error` times the median root-mean-square residual of the first ensemble. The
    inflation of that error falls fourfold from one assimilation to the next, as steps late in
    the search are the more reliable.

    Args:
        ensemble_size: Members, >= 2; `None` to spend the budget, 50 when it is not known.
        num_assimilations: >= 1.
        observation_error: > 0, see above.

    Raises:
        InputError: If an argument breaks its rule.
        MissingPackageError: If iterative-ensemble-smoother is not installed.

    Example:
        >>> from zo_bilevel import Problem, Real, Space, SquaredError, minimize
        >>> problem = Problem(Space(a=Real(0, 4)), lambda phi: phi["a"] ** 2, SquaredError(4.0))
        >>> minimize(problem, ESMDA(), max_solves=100).loss < 1e-3
        True

    Source:
        Emerick and Reynolds (2013), "Ensemble smoother with multiple data assimilation",
        Computers & Geosciences 55.
    """

    label, needs_residuals = "esmda", True
    package = "iterative_ensemble_smoother", "baselines"

    def __init__(
        self,
        *,
        ensemble_size: int | None = None,
        num_assimilations: int = 4,
        observation_error: float = 1e-3,
    ) -> None:
        super().__init__("scaled")
        if ensemble_size is not None:
            ensemble_size = whole_number("ensemble_size", ensemble_size, least=2)
        self.ensemble_size = ensemble_size
        self.num_assimilations = whole_number("num_assimilations", num_assimilations, least=1)
        self.observation_error = finite_number("observation_error", observation_error, "> 0")

    def _size(self, max_solves: int | None) -> int:
        if self.ensemble_size is not None:
            return self.ensemble_size
        if max_solves is None:
            return SIZE_WITHOUT_BUDGET
        return max((max_solves - 1) // self.num_assimilations, SMALLEST_ENSEMBLE)

    def drive(self, solves: Solves) -> str:
        """Assimilate, then solve the mean."""
        search, to_x = solves.search, solves.coordinates.to_x
        rng, size = search.rng(1), self._size(search.max_solves)
        noise = rng.standard_normal((search.space.size, size))
        noise[:, 0] = 0.0  # the start itself
        members = search.start[:, None] + search.space.prior.apply_sqrt(noise)
        smoother = None
        for _ in range(self.num_assimilations):
            members, residuals = self._solve(members, solves)
            if smoother is None:
                smoother = self._smoother(residuals, rng)
            smoother.prepare_assimilation(Y=residuals)
            members = smoother.assimilate_batch(X=members)
            members = np.stack([to_x(member) for member in members.T], axis=1)
        solves.evaluate([members.mean(axis=1)])
        return f"{self.num_assimilations} assimilations of {size} members done"

    def _solve(self, members: FloatArray, solves: Solves) -> tuple[FloatArray, FloatArray]:
        members = np.stack([solves.coordinates.to_x(member) for member in members.T], axis=1)
        evaluations = solves.evaluate(list(members.T))
        outer = residuals_of(solves.search, self.label)
        kept = [place for place, evaluation in enumerate(evaluations) if evaluation.ok]
        if len(kept) < 2:
            raise GiveUpError(f"esmda: {len(kept)} of {len(evaluations)} members left, 2 needed")
        good = [evaluations[place] for place in kept]
        return members[:, kept], np.stack(solves.rule.residuals(good, outer), axis=1)

    def _smoother(self, residuals: FloatArray, rng: np.random.Generator) -> Any:  # noqa: ANN401
        count = len(residuals)
        variance = float(np.median((residuals**2).sum(axis=0))) / count
        error = max(self.observation_error**2 * variance, np.finfo(float).tiny)
        inflations = INFLATION_FALL ** -np.arange(self.num_assimilations, dtype=np.float64)
        return self.library().ESMDA(
            np.full(count, error), np.zeros(count), alpha=inflations, seed=rng
        )
