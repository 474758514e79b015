"""Our methods behind scikit-learn's search interface, for code that has a `GridSearchCV`."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np

from zo_bilevel.methods.base import Method
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.solve.evaluation import Evaluation, Point
from zo_bilevel.support.arguments import refuse_unknown, whole_number
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.packages import import_optional

import_optional("sklearn", "ZOSearchCV", "sklearn")

from sklearn.exceptions import FitFailedWarning  # noqa: E402 - its absence is named above
from sklearn.model_selection._search import BaseSearchCV  # noqa: E402

Evaluate: TypeAlias = Callable[[list[dict[str, Any]]], Any]
_SCALAR = ThetaLayout((), ((),))


class ZOSearchCV(BaseSearchCV):  # type: ignore[misc]  # scikit-learn is untyped
    """Search hyper-parameters with a method of zo_bilevel; use it as `GridSearchCV`.

    The score is all that this interface shows, so the problem is scalar; for squared error and
    log loss, where our methods can see every validation answer, `SklearnEstimator` needs far
    fewer fits.

    Args:
        estimator: Any estimator or pipeline with scikit-learn's interface.
        space: A `zb.Space`, or a dict of its parameters: `{"clf__C": zb.Log(1e-3, 1e3)}`.
        max_solves: How many candidates are tried, each on all folds, >= 1.
        method: A method of zo_bilevel; default the one of `zb.minimize`.
        initial: First candidate by name, partial or absent.
        random_state: Seed of the search, a whole number >= 0.
        round_width: Candidates that are tried at once where the method can.
        scoring: As for `GridSearchCV`; of several metrics the one named by `refit` is searched.
        n_jobs: As for `GridSearchCV`: fits at once, over candidates of a round and folds.
        refit: As for `GridSearchCV`.
        cv: As for `GridSearchCV`.
        verbose: As for `GridSearchCV`.
        pre_dispatch: As for `GridSearchCV`.
        error_score: As for `GridSearchCV`. A candidate whose mean score is not finite is a failed
            solve for the method; a round in which every fit fails is not in `cv_results_`.
        return_train_score: As for `GridSearchCV`.

    Raises:
        InputError: In `fit`, before the first candidate: if a name in the space is no parameter
            of the estimator, or an argument breaks its rule.

    Example:
        >>> from sklearn.linear_model import Ridge
        >>> from zo_bilevel import Log, RandomSearch
        >>> search = ZOSearchCV(Ridge(), {"alpha": Log(1e-3, 1e3)}, max_solves=5,
        ...                     method=RandomSearch(), cv=2)
        >>> X = np.vander(np.linspace(0, 1, 20), 4)
        >>> len(search.fit(X, X @ np.ones(4)).cv_results_["params"])
        5
    """

    def __init__(
        self,
        estimator: Any,  # noqa: ANN401 - scikit-learn is untyped
        space: Space | Mapping[str, Any],
        *,
        max_solves: int = 50,
        method: Method | None = None,
        initial: Mapping[str, Any] | None = None,
        random_state: int = 0,
        round_width: int = 1,
        scoring: Any = None,  # noqa: ANN401
        n_jobs: int | None = None,
        refit: Any = True,  # noqa: ANN401
        cv: Any = None,  # noqa: ANN401
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: Any = np.nan,  # noqa: ANN401
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.space = space
        self.max_solves = max_solves
        self.method = method
        self.initial = initial
        self.random_state = random_state
        self.round_width = round_width

    def _run_search(self, evaluate_candidates: Evaluate) -> None:
        """Called by `fit`: ask the method, try its candidates, tell it their scores."""
        space = self.space if isinstance(self.space, Space) else Space(self.space)
        refuse_unknown("ZOSearchCV", "parameter", space.names, self.estimator.get_params(deep=True))
        method, room = self._checked_method(), whole_number("max_solves", self.max_solves, least=1)
        problem = Problem(space, _no_solver, name="ZOSearchCV")
        state = method.start(
            problem, self.random_state, initial=self.initial, round_width=self.round_width
        )
        self._has_results, self._all_failed = False, cast("ValueError | None", None)
        try:
            while room and (points := method.ask(state)):
                evaluations = self._tried(points[:room], space, evaluate_candidates)
                room -= len(evaluations)
                if len(evaluations) < len(points):
                    break
                state = method.tell(state, evaluations)
        finally:
            state.close()
        if self._all_failed is not None:
            raise self._all_failed

    def _tried(
        self, points: list[Point], space: Space, evaluate_candidates: Evaluate
    ) -> list[Evaluation]:
        """Try the candidates of one round.

        scikit-learn raises where all candidates of a call fail, for it expects one call for all;
        here a round may be a single candidate. Its error counts when nothing ever succeeds.
        """
        try:
            results = evaluate_candidates([space.decode(point.x) for point in points])
        except ValueError as error:
            if self.error_score == "raise" or "fits failed" not in str(error):
                raise
            warnings.warn(str(error), FitFailedWarning, stacklevel=2)
            if not self._has_results:
                self._all_failed = error
            return [_evaluation(point, np.nan) for point in points]
        self._has_results, self._all_failed = True, None
        scores = results[self._score_key(results)][-len(points) :]
        return [_evaluation(p, s) for p, s in zip(points, scores, strict=True)]

    def _checked_method(self) -> Method:
        if self.method is None:
            from zo_bilevel.methods.default import DefaultMethod

            return DefaultMethod()
        if not isinstance(self.method, Method):
            raise InputError(f"method must be a Method, got {type(self.method).__name__}")
        return self.method

    def _score_key(self, results: Mapping[str, Any]) -> str:
        """Which column of the results is searched."""
        if "mean_test_score" in results:
            return "mean_test_score"
        key = f"mean_test_{self.refit}"
        if key not in results:
            raise InputError(
                f"with several metrics refit must name the one to search, got {self.refit!r}"
            )
        return key


def _no_solver(phi: Mapping[str, Any]) -> float:
    """Stands for the inner solver: scikit-learn runs the candidates itself."""
    raise NotImplementedError(f"{phi} is tried by scikit-learn")


def _evaluation(point: Point, score: float) -> Evaluation:
    loss = -float(score)
    if not np.isfinite(loss):
        return Evaluation(point, "failed", None, np.inf, error=f"its mean score is {score}")
    return Evaluation(point, "ok", cast(Any, np.array([loss])), loss, layout=_SCALAR)
