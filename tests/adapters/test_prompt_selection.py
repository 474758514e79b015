"""Which soft prompt is kept: validation, shrinking, stopping early."""

from types import SimpleNamespace

import numpy as np
import pytest

from zo_bilevel.adapters.prompts.prompt_folds import Path, best_length, folded
from zo_bilevel.adapters.prompts.prompt_selection import LEAST_CALLS, Selection


def records(count, losses=None):
    """Every solve is the best so far and moves the prompt by one."""
    for k in range(1, count + 1):
        phi = {"latent": np.full(2, float(k))}
        yield SimpleNamespace(status="ok", loss=-k, best_loss=-k, solve=k, phi=phi)


def fed(best, count, calls, start=1000.0):
    def judge(phi):
        return start if phi is None else abs(float(phi["latent"][0]) - best)

    selection, seen = Selection(judge, calls), 0
    try:
        for record in records(count):
            seen = record.solve
            selection.see(record)
    except StopIteration:
        pass
    return selection, seen


def test_the_best_on_validation_is_kept_and_the_last_one_without():
    selection, seen = fed(best=20.0, count=60, calls=60)
    assert seen == 60
    assert selection.best() == (20, {"latent": pytest.approx(np.full(2, 20.0))})
    plain = Selection(None, 60)
    for record in records(60):
        plain.see(record)
    assert plain.best()[0] == 60
    assert Selection(None, 60).best() == (0, None)


def test_a_prompt_nearer_to_the_hand_written_one_is_tried():
    solve, phi = fed(best=1.5, count=300, calls=300)[0].best()
    assert phi["latent"] == pytest.approx(np.full(2, 2.5))  # a quarter of 10, the first judged
    assert solve == 10
    assert fed(best=-10.0, count=60, calls=60, start=5.0)[0].best() == (0, None)


def test_a_run_ends_when_validation_gets_no_better():
    assert fed(best=20.0, count=1000, calls=1000)[1] == LEAST_CALLS
    assert fed(best=297.0, count=1000, calls=1000)[1] == 2 * 297
    selection, seen = fed(best=900.0, count=1000, calls=1000)
    assert seen == 1000
    assert [selection.best(until=k)[0] for k in (100, 300)] == [99, 297]


def test_each_part_has_every_class_and_each_example_is_in_one():
    parts = folded("xxxyyy", 2)
    assert [own for _, own in parts] == [[0, 2, 3, 5], [1, 4]]
    assert [others for others, _ in parts] == [[1, 4], [0, 2, 3, 5]]
    assert [own for _, own in folded("xyyxyx", 2)] == [[0, 1, 4, 5], [2, 3]]


def test_the_mean_over_parts_chooses_calls_and_share():
    paths = [Path(), Path()]
    for path in paths:
        for record in records(100):
            path.see(record)
    # one part is best at 20, the other at 40: in the mean at 30, or farther on and shrunk to it
    judges = [
        lambda phi, k=k: 200.0 if phi is None else (phi["latent"][0] - k) ** 2 for k in (20, 40)
    ]
    length, share = best_length(paths, judges, 100)
    assert share * length == 30.0
    worse = [lambda phi: 0.0 if phi is None else 1.0] * 2
    assert best_length(paths, worse, 100) == (0, 0.0)
    assert Path().after(5) is None
