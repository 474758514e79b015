"""SklearnEstimator and ZOSearchCV: exact validation losses, scikit-learn's own conformance."""

from __future__ import annotations

import warnings

import joblib
import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import InputError, SolveError

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.base import clone
from sklearn.datasets import load_iris, make_regression
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ShuffleSplit,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import estimator_checks_generator

from zo_bilevel.adapters import SklearnEstimator, ZOSearchCV
from zo_bilevel.problem.objectives.base import OuterContext
from zo_bilevel.problem.theta import ThetaLayout

X, Y = make_regression(60, 5, noise=5.0, random_state=0)
FLOWERS, KINDS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[KINDS]


def test_theta_is_the_predictions_on_validation_rows_and_the_loss_is_exact():
    solver = SklearnEstimator(Ridge(), X, Y, cv=KFold(5))
    theta = solver({"alpha": 2.0})
    expected = cross_val_predict(Ridge(alpha=2.0), X, Y, cv=KFold(5))
    np.testing.assert_allclose(theta, expected[solver.validation_rows], rtol=1e-12)
    loss = zb.SquaredError(solver.targets).loss(theta)
    assert loss == pytest.approx(mean_squared_error(Y, expected), rel=1e-12)


def test_log_probabilities_give_scikit_learns_log_loss():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    solver = SklearnEstimator(pipeline, FLOWERS, NAMES, cv=4, response="predict_log_proba")
    theta = solver({"logisticregression__C": 3.0})
    tuned = clone(pipeline).set_params(logisticregression__C=3.0)
    chances = cross_val_predict(tuned, FLOWERS, NAMES, cv=4, method="predict_proba")
    assert theta.shape == (150, 3)
    outer = zb.CrossEntropy(solver.targets)
    assert outer.loss(theta.ravel()) == pytest.approx(log_loss(NAMES, chances), rel=1e-9)
    assert solver.classes.tolist() == ["setosa", "versicolor", "virginica"]


def test_a_method_finds_the_penalty_that_a_fine_grid_finds():
    solver = SklearnEstimator(Ridge(), X, Y, cv=KFold(5))
    outer = zb.SquaredError(solver.targets)
    problem = zb.Problem(zb.Space(alpha=zb.Log(1e-3, 1e3)), solver, outer)
    result = zb.minimize(problem, zb.RandomSearch(), max_solves=40, seed=0)
    grid = [outer.loss(solver({"alpha": a})) for a in np.geomspace(1e-3, 1e3, 200)]
    assert result.loss < min(grid) * 1.05


def test_a_scorer_makes_the_problem_scalar():
    solver = SklearnEstimator(SVC(), FLOWERS, KINDS, cv=3, scoring="balanced_accuracy")
    expected = cross_val_score(SVC(C=0.1), FLOWERS, KINDS, cv=3, scoring="balanced_accuracy")
    assert solver({"C": 0.1}) == pytest.approx(-expected.mean())
    zb.Problem(zb.Space(C=zb.Log(0.01, 10)), solver)


def test_array_parameters_reach_a_pipeline_step():
    def scaled(features, scales):
        return features * np.exp(scales)

    step = FunctionTransformer(scaled, kw_args={"scales": np.zeros(4)})
    pipeline = make_pipeline(step, SVC())
    solver = SklearnEstimator(pipeline, FLOWERS, KINDS, cv=3, response="decision_function")
    theta = solver({"functiontransformer__kw_args": {"scales": np.full(4, 0.5)}})
    assert theta.shape == (150, 3)


def test_open_random_states_get_the_seed_and_only_they():
    forest = RandomForestClassifier(5)
    solver = SklearnEstimator(forest, FLOWERS, KINDS, cv=2, response="predict_proba")
    assert takes_seed(solver)
    phi = {"max_depth": 3}
    np.testing.assert_array_equal(solver(phi, seed=1), solver(phi, seed=1))
    assert not np.array_equal(solver(phi, seed=1), solver(phi, seed=2))
    fixed = SklearnEstimator(RandomForestClassifier(5, random_state=0), FLOWERS, KINDS, cv=2)
    assert not takes_seed(fixed)
    assert not takes_seed(SklearnEstimator(LogisticRegression(random_state=0), FLOWERS, KINDS))


def test_classes_that_a_fold_has_not_seen_keep_their_columns():
    folds = KFold(3)  # iris is sorted: each training fold lacks one class
    solver = SklearnEstimator(
        LogisticRegression(), FLOWERS, KINDS, cv=folds, response="predict_proba"
    )
    theta = solver({"C": 1.0})
    assert theta.shape == (150, 3)
    np.testing.assert_array_equal(theta[np.arange(150), KINDS], 0.0)
    logs = SklearnEstimator(
        LogisticRegression(), FLOWERS, KINDS, cv=folds, response="predict_log_proba"
    )
    assert np.isfinite(logs({"C": 1.0})).all()
    decisions = SklearnEstimator(
        LogisticRegression(), FLOWERS, KINDS, cv=folds, response="decision_function"
    )
    with pytest.raises(SolveError, match="has 2 of 3 classes"):
        decisions({"C": 1.0})


def test_rows_follow_the_folds_and_fit_parameters_are_cut_to_them():
    weights = np.linspace(0, 1, 60)
    split = ShuffleSplit(4, test_size=0.5, random_state=0)
    solver = SklearnEstimator(Ridge(), X, Y, cv=split, fit_parameters={"sample_weight": weights})
    assert solver({"alpha": 1.0}).shape == solver.targets.shape == (120,)
    plain = SklearnEstimator(Ridge(), X, Y, cv=split)
    assert not np.array_equal(plain({"alpha": 1.0}), solver({"alpha": 1.0}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SklearnEstimator(3, X, Y), "estimator must have fit and get_params, got 3"),
        (lambda: SklearnEstimator(Ridge(), X, Y[:5]), "data and cv=5 do not fit"),
        (lambda: SklearnEstimator(Ridge(), X, Y, cv=1), "data and cv=1 do not fit"),
        (lambda: SklearnEstimator(Ridge(), X, Y, response="proba"), "unknown response 'proba'"),
        (lambda: SklearnEstimator(Ridge(), X, Y, response="predict_proba"), "has no method"),
        (lambda: SklearnEstimator(Ridge(), X, Y, scoring="r3"), "unknown scorer 'r3'"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_parameter_that_the_estimator_does_not_have_is_refused_before_the_first_solve():
    pipeline = make_pipeline(StandardScaler(), SVC())
    solver = SklearnEstimator(pipeline, FLOWERS, KINDS)
    with pytest.raises(InputError, match="unknown parameter 'svm__C'; did you mean 'svc__C'"):
        zb.Problem(zb.Space({"svm__C": zb.Log(0.1, 1)}), solver)
    zb.Problem(zb.Space({"svc__C": zb.Log(0.1, 1)}), solver)


# -- ZOSearchCV ----------------------------------------------------------------------------------

ALPHA = {"alpha": zb.Log(1e-3, 1e3)}


def searching(estimator, space, **options):
    options = {"max_solves": 2, "method": zb.RandomSearch(), "cv": 2, **options}
    return ZOSearchCV(estimator, space, **options)


def also_failed_by_grid_search(search):
    """What scikit-learn lists for its own GridSearchCV around an estimator of many outputs."""
    if isinstance(search.estimator, Ridge):
        return {"check_supervised_y_2d": "a search does not warn of a column for y"}
    return {}


def own_checks():
    """All that apply: the array-API checks need other array packages, some of them a GPU's."""
    for search in (
        ZOSearchCV(Ridge(), ALPHA, max_solves=2, cv=2),
        ZOSearchCV(LogisticRegression(), {"C": zb.Log(1e-2, 1e2)}, max_solves=2, cv=2),
    ):
        known = also_failed_by_grid_search(search)
        for estimator, check in estimator_checks_generator(search):
            name = f"{type(search.estimator).__name__}-{check.func.__name__}"
            if "array_api" not in name:
                marks = [pytest.mark.xfail] if check.func.__name__ in known else []
                yield pytest.param(estimator, check, id=name, marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(own_checks()))
def test_scikit_learns_own_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_it_is_used_like_a_grid_search():
    search = searching(Ridge(), ALPHA, max_solves=12, cv=5, scoring="r2").fit(X, Y)
    grid = GridSearchCV(Ridge(), {"alpha": [search.best_params_["alpha"]]}, cv=5, scoring="r2")
    grid.fit(X, Y)
    assert search.best_score_ == pytest.approx(grid.best_score_)
    assert search.best_estimator_.alpha == search.best_params_["alpha"]
    np.testing.assert_array_equal(search.predict(X), grid.predict(X))
    assert set(grid.cv_results_) == set(search.cv_results_)
    assert len(search.cv_results_["params"]) == 12
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])


def test_the_default_method_and_a_start():
    search = ZOSearchCV(Ridge(), ALPHA, max_solves=8, initial={"alpha": 5.0}, cv=3).fit(X, Y)
    assert 1 <= len(search.cv_results_["params"]) <= 8
    assert search.cv_results_["params"][0]["alpha"] == pytest.approx(5.0, rel=0.5)


def test_same_seed_same_candidates_at_any_number_of_jobs():
    with joblib.parallel_config("threading"):
        first, second, other = (
            searching(Ridge(), ALPHA, max_solves=6, random_state=seed, n_jobs=n_jobs).fit(X, Y)
            for seed, n_jobs in ((3, 1), (3, 2), (4, 1))
        )
    assert first.cv_results_["params"] == second.cv_results_["params"]
    assert first.cv_results_["params"] != other.cv_results_["params"]


def test_it_can_be_cloned_nested_and_put_in_a_pipeline():
    search = clone(searching(Ridge(), zb.Space(ALPHA), max_solves=4))
    pipeline = make_pipeline(StandardScaler(), search).fit(X, Y)
    assert pipeline.score(X, Y) > 0.5
    nested = searching(pipeline, {"zosearchcv__max_solves": zb.Integer(1, 3)}).fit(X, Y)
    assert nested.best_params_["zosearchcv__max_solves"] in (1, 2, 3)


def test_a_candidate_that_fails_is_a_failed_solve_unless_all_do():
    space = {"alpha": zb.Choice([-1.0, 1.0])}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search = searching(Ridge(), space, max_solves=8).fit(X, Y)
    assert any("fits failed" in str(warning.message) for warning in caught)
    assert search.best_params_ == {"alpha": 1.0}
    assert 1 <= len(search.cv_results_["params"]) < 8
    hopeless = searching(Ridge(), {"alpha": zb.Real(-2.0, -1.0)}, max_solves=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="All the 2 fits failed"):
            hopeless.fit(X, Y)
    with pytest.raises(ValueError, match=r"'alpha' parameter of Ridge must be"):
        clone(hopeless).set_params(error_score="raise").fit(X, Y)


def test_several_metrics_search_the_one_to_refit():
    metrics = {"a": "r2", "b": "neg_mean_squared_error"}
    search = searching(Ridge(), ALPHA, max_solves=5, scoring=metrics, refit="b").fit(X, Y)
    assert search.best_index_ == np.argmax(search.cv_results_["mean_test_b"])
    with pytest.raises(InputError, match="refit must name the one to search, got False"):
        searching(Ridge(), ALPHA, scoring=metrics, refit=False).fit(X, Y)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({"alhpa": zb.Log(1, 2)}, {}, "unknown parameter 'alhpa'; did you mean 'alpha'"),
        (ALPHA, {"max_solves": 0}, "max_solves must be a whole number >= 1, got 0"),
        (ALPHA, {"method": "gn"}, "method must be a Method, got str"),
        ({}, {}, "space must have at least one parameter"),
    ],
)
def test_a_bad_search_is_refused_before_the_first_candidate(space, options, message):
    with pytest.raises(InputError, match=message):
        searching(Ridge(), space, **options).fit(X, Y)


def test_array_parameters_are_candidates_too():
    class Scaled(Ridge):
        def __init__(self, scales=None, alpha=1.0):
            super().__init__(alpha=alpha)
            self.scales = scales

        def fit(self, features, target):
            return super().fit(features * self.scales, target)

    search = searching(Scaled(), {"scales": zb.Real(0.5, 2, shape=(5,))}, max_solves=3).fit(X, Y)
    assert search.best_params_["scales"].shape == (5,)


def test_the_layout_of_theta_fits_the_cross_entropy():
    solver = SklearnEstimator(LogisticRegression(), FLOWERS, NAMES, response="predict_log_proba")
    outer = zb.CrossEntropy(solver.targets)
    layout = ThetaLayout((), ((150, 3),))
    outer.check(layout)
    assert OuterContext(zb.Space(C=zb.Log(1, 2)), layout).layout is layout
