"""Packages that bridges lead to."""

import warnings

import pytest


@pytest.fixture(scope="module")
def ng():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("nevergrad", reason="needs the extra baselines")
