"""A scikit-learn estimator as an inner solver: hyper-parameters in, validation answers out."""

import hashlib
import pickle
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np

from zo_bilevel.adapters.seeding import solver_signature
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arguments import refuse_unknown
from zo_bilevel.support.errors import InputError, SolveError, unknown_name_message
from zo_bilevel.support.packages import import_optional

Response: TypeAlias = Literal["predict", "predict_proba", "predict_log_proba", "decision_function"]
RANDOM_STATE = "random_state"


@final
class SklearnEstimator:
    """Fit an estimator on each training fold; theta is what it answers on the validation folds.

    With predictions as theta the outer objective is exact and differentiable, and methods see one
    number a validation row instead of one score: `zb.SquaredError(adapter.targets)` for
    regression, `zb.CrossEntropy(adapter.targets)` with `response="predict_log_proba"` for
    classification. With `scoring`, theta is minus the mean score, and the problem is scalar.

    Args:
        estimator: Any estimator or pipeline with scikit-learn's interface; it is cloned.
        X: Features, shape `(rows, columns)`, or anything the estimator takes.
        y: Targets, shape `(rows,)`, or `None`.
        cv: Number of folds, or any scikit-learn splitter with a fixed seed.
        response: What the estimator is asked on validation rows. Log-probabilities are cut at
            log(2.2e-16), as scikit-learn's log loss does; classes that a fold has not seen
            have that too.
        scoring: Name of a scikit-learn scorer, or a scorer, instead of `response`.
        fit_parameters: Passed to `fit`, such as sample weights; arrays of a value a row are cut
            to the fold.

    Raises:
        InputError: If it is no estimator, lacks the response, or data and folds do not fit. When
            a `Problem` is made: if a parameter of the space is none of the estimator's (with the
            nearest names).
        MissingPackageError: If scikit-learn is not installed.

    Example:
        >>> from sklearn.linear_model import Ridge
        >>> X, y = np.eye(6), np.arange(6.0)
        >>> solver = SklearnEstimator(Ridge(), X, y, cv=3)
        >>> solver({"alpha": 1.0}).shape, solver.targets
        ((6,), array([0., 1., 2., 3., 4., 5.]))
    """

    def __init__(
        self,
        estimator: Any,  # noqa: ANN401 - scikit-learn is untyped
        X: Any,  # noqa: ANN401, N803 - scikit-learn's own name
        y: Any = None,  # noqa: ANN401
        *,
        cv: Any = 5,  # noqa: ANN401
        response: Response = "predict",
        scoring: Any = None,  # noqa: ANN401
        fit_parameters: Mapping[str, Any] | None = None,
    ) -> None:
        import_optional("sklearn", "SklearnEstimator", "sklearn")
        if not all(callable(getattr(estimator, name, None)) for name in ("fit", "get_params")):
            raise InputError(f"estimator must have fit and get_params, got {estimator!r}")
        if response not in get_args(Response):
            raise InputError(unknown_name_message("response", str(response), get_args(Response)))
        self.estimator = estimator
        self.response: Response = response
        self._data, self._fit_parameters = (X, y), dict(fit_parameters or {})
        self._scorer = None if scoring is None else _scorer(estimator, scoring)
        self._folds = self._split(cv)
        self.validation_rows = np.concatenate([test for _, test in self._folds])
        self.classes: Any = np.unique(np.asarray(y)) if self._is_classifier() else None
        if scoring is None and not hasattr(estimator, _method(response)):
            raise InputError(f"{type(estimator).__name__} has no method {_method(response)}")
        self._random_states = [
            name
            for name, value in sorted(estimator.get_params(deep=True).items())
            if value is None and (name == RANDOM_STATE or name.endswith(f"__{RANDOM_STATE}"))
        ]
        self.__signature__ = solver_signature(with_seed=bool(self._random_states))
        self.name = f"SklearnEstimator({type(estimator).__name__})#{self._identity(scoring)}"

    @property
    def targets(self) -> Any:  # noqa: ANN401 - an array
        """The truth for theta, row by row: numbers, or positions in `classes` to be predicted.

        Shape `(validation rows,)`, in the order of theta: fold after fold.
        """
        y = np.asarray(self._data[1])[self.validation_rows]
        return y if self.classes is None else np.searchsorted(self.classes, y)

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401 - a number or array
        """Fit and answer on every fold.

        Args:
            phi: Hyper-parameters by name.
            seed: For every `random_state` that the estimator leaves open.

        Returns:
            Shape `(validation rows,)` or `(validation rows, classes)`; a number with `scoring`.
        """
        from sklearn.base import clone

        fixed = dict.fromkeys(self._random_states, seed)
        candidate = clone(self.estimator).set_params(**{**fixed, **phi})
        answers = [self._on_fold(clone(candidate), train, test) for train, test in self._folds]
        if self._scorer is not None:
            return -float(np.mean(answers))
        return np.concatenate(answers)

    def check(self, space: Space) -> None:
        """Refuse a space whose parameters the estimator does not have, before the first solve.

        Raises:
            InputError: Naming the parameter and the nearest ones.
        """
        owner = f"SklearnEstimator({type(self.estimator).__name__})"
        known = self.estimator.get_params(deep=True)
        refuse_unknown(owner, "parameter", space.names, known)

    def __repr__(self) -> str:
        return self.name

    def _on_fold(self, estimator: Any, train: Any, test: Any) -> Any:  # noqa: ANN401 - untyped
        from sklearn.utils import _safe_indexing
        from sklearn.utils.validation import _check_method_params

        X, y = self._data  # noqa: N806 - scikit-learn's own name
        given = _check_method_params(X, params=self._fit_parameters, indices=train)
        seen = () if y is None else (_safe_indexing(y, train),)
        estimator.fit(_safe_indexing(X, train), *seen, **given)
        rows = _safe_indexing(X, test)
        if self._scorer is not None:
            return self._scorer(estimator, rows, *(() if y is None else (_safe_indexing(y, test),)))
        answer = np.asarray(getattr(estimator, _method(self.response))(rows))
        if self.classes is None:
            return answer
        return self._aligned(answer, estimator)

    def _aligned(self, answer: Any, estimator: Any) -> Any:  # noqa: ANN401 - untyped
        """Give every fold the same columns: one a class of all the data."""
        classes = self.classes
        if self.response == "predict":
            if not np.isin(answer, classes).all():
                raise SolveError("the estimator predicted a class that is not in y")
            return np.searchsorted(classes, answer)
        if self.response == "decision_function":
            if len(estimator.classes_) != len(classes):
                raise SolveError(
                    f"a training fold has {len(estimator.classes_)} of {len(classes)} classes: "
                    "decision values do not compare; use a stratified splitter for cv"
                )
            return answer
        table = np.zeros((len(answer), len(classes)))
        table[:, np.searchsorted(classes, estimator.classes_)] = answer
        if self.response == "predict_proba":
            return table
        return np.log(np.clip(table, np.finfo(np.float64).eps, 1.0))

    def _is_classifier(self) -> bool:
        from sklearn.base import is_classifier

        return bool(is_classifier(self.estimator)) and self._data[1] is not None

    def _split(self, cv: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - a number or splitter
        from sklearn.model_selection import check_cv
        from sklearn.utils import indexable

        X, y = self._data  # noqa: N806 - scikit-learn's own name
        try:
            indexable(X, y)
            splitter = check_cv(cv, y, classifier=self._is_classifier())
            folds = list(splitter.split(X, y))
        except (TypeError, ValueError) as error:
            raise InputError(f"data and cv={cv!r} do not fit: {error}") from error
        if not folds:
            raise InputError(f"cv={cv!r} gives no fold")
        return folds

    def _identity(self, scoring: object) -> str:
        """A hash of estimator, data and folds."""
        digest = hashlib.blake2b(digest_size=6)
        for part in (
            repr(sorted(self.estimator.get_params(deep=True).items(), key=lambda item: item[0])),
            self.response if scoring is None else repr(scoring),
        ):
            digest.update(re.sub(r" at 0x[0-9a-f]+", "", part).encode())
        for data in (self._data, self._fit_parameters, self._folds):
            digest.update(pickle.dumps(data))
        return digest.hexdigest()


def _method(response: str) -> str:
    """Log-probabilities are made from probabilities, cut where they are 0."""
    return "predict_proba" if response == "predict_log_proba" else response


def _scorer(estimator: Any, scoring: Any) -> Any:  # noqa: ANN401 - scikit-learn is untyped
    from sklearn.metrics import check_scoring

    try:
        return check_scoring(estimator, scoring)
    except (TypeError, ValueError) as error:
        if not isinstance(scoring, str):
            raise InputError(f"scoring: {error}") from error
        from sklearn.metrics import get_scorer_names

        names = get_scorer_names()
        if scoring in names:
            raise InputError(f"scoring={scoring!r}: {error}") from error
        raise InputError(unknown_name_message("scorer", scoring, names)) from error
