"""Tune 31 hyper-parameters of a classifier: a scale for each of 30 features, and its penalty.

theta is the log-probabilities on the validation folds, one row for each patient; the loss is their
cross-entropy. Methods that see theta know much more than one score a solve.
Needs: pip install "zo-bilevel[sklearn,baselines,plot]"
"""

import os
import sys

import numpy as np

import zo_bilevel as zb
from zo_bilevel.adapters import SklearnEstimator

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"
try:
    from sklearn.base import clone
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
except ImportError:
    print('scikit-learn is not installed: pip install "zo-bilevel[sklearn]"')
    sys.exit(0)
features, labels = load_breast_cancer(return_X_y=True)
tuning, testing, tuning_labels, testing_labels = train_test_split(
    features, labels, test_size=0.5, random_state=0, stratify=labels
)


def scaled(rows, log_scales):
    return rows * np.exp(log_scales)


pipeline = Pipeline(
    [
        ("standard", StandardScaler()),
        ("scale", FunctionTransformer(scaled, kw_args={"log_scales": np.zeros(30)})),
        ("classify", LogisticRegression(solver="newton-cholesky", tol=1e-8)),
    ]
)
estimator = SklearnEstimator(pipeline, tuning, tuning_labels, cv=4, response="predict_log_proba")
space = zb.Space(log_scales=zb.Real(-3, 3, shape=(30,)), C=zb.Log(1e-3, 1e3))


def settings(phi):
    """The pipeline takes its scales in a dict."""
    return {"scale__kw_args": {"log_scales": phi["log_scales"]}, "classify__C": phi["C"]}


def solve(phi):
    return estimator(settings(phi))


problem = zb.Problem(space, solve, zb.CrossEntropy(estimator.targets), name="31 parameters")


def main():
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "nevergrad:CMA": zb.Nevergrad("CMA"),
        "nevergrad:OnePlusOne": zb.Nevergrad("OnePlusOne"),
        "nevergrad:Cobyla": zb.Nevergrad("Cobyla"),
    }
    budget = {"max_solves": 40, "seeds": range(2)} if SMALL else {"max_solves": 300}
    comparison = zb.compare(problem, methods, **budget)
    for run in comparison.runs[: len(methods)]:
        tuned = clone(pipeline).set_params(**settings(run.phi)).fit(tuning, tuning_labels)
        error = log_loss(testing_labels, tuned.predict_proba(testing))
        print(f"seed {run.seed}, {run.method:20} cross-entropy on patients never seen: {error:.4f}")
    print(f"\n{comparison.table()}")
    print("picture:", comparison.plot("hyperparameters.png"))


if __name__ == "__main__":
    main()
