"""The published bilevel programs: their formulas give the published optima."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bilevel_programs import PROGRAMS

pytest.importorskip("highspy", reason="highspy is not installed")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_published_optimum_is_what_the_follower_gives(name):
    program = PROGRAMS[name]()
    y = np.atleast_1d(program.follower(program.phi))
    np.testing.assert_allclose(np.abs(y), np.abs(program.y), atol=1e-3)  # of equal minima, any
    assert program.leader(y, program.phi) == pytest.approx(program.loss, abs=1e-3)
