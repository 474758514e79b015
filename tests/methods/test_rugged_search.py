"""Losses that jump from draw to draw: known soon, left to a population, judged on fresh draws."""

import zlib
from collections import Counter

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.methods.base import Search
from zo_bilevel.methods.trust_region.continuous_part import ContinuousPart
from zo_bilevel.methods.trust_region.global_search import Evolution
from zo_bilevel.methods.trust_region.region_search import RegionSearch
from zo_bilevel.methods.trust_region.rugged_search import RuggedSearch
from zo_bilevel.methods.trust_region.ruggedness import GainElsewhere, Ruggedness
from zo_bilevel.solve.evaluation import Evaluation, Point

SIZE = 12


def space():
    return zb.Space(x=zb.Real(-3.0, 3.0, (SIZE,)))


def part_at(start, loss, max_solves=None):
    problem = zb.Problem(space(), lambda phi, *, seed: 0.0)
    first = Evaluation(Point(start), "ok", np.zeros(1), loss(start, (0,)))
    return ContinuousPart(Search(problem, start, max_solves=max_solves), first)


def drive(rounds, loss, most=10**6):
    """Solve what a local search asks, up to so many solves: its points, and their losses."""
    solved, points = [], next(rounds, None)
    while points is not None and len(solved) + len(points) <= most:
        told = [Evaluation(p, "ok", np.zeros(1), loss(p.x, p.stream)) for p in points]
        solved += told
        try:
            points = rounds.send(told)
        except StopIteration:
            break
    return solved


def lucky(x, stream):
    """A bowl of which each point is lucky on some draws."""
    luck = np.random.default_rng([*stream, zlib.crc32(x.tobytes())]).exponential(3.0)
    return float(np.sum((x - 1.0) ** 2)) - luck


def test_once_a_loss_is_known_as_rugged_the_descent_has_no_further_turn():
    """Turns went on, 15 to 18 probes and as many steps, and all solves shared one draw."""
    planes, draws = np.random.default_rng(0).normal(size=(40, SIZE)), set()

    def falls(phi, *, seed):
        draws.add(seed)
        limits = 4.5 + 0.2 * np.random.default_rng(seed).normal(size=40)
        return 0.1 * float(np.sum(phi["x"] ** 2)) - float(np.sum(planes @ phi["x"] > limits))

    start = {"x": np.full(SIZE, 0.3)}
    result = zb.minimize(zb.Problem(space(), falls), max_solves=200, seed=0, initial=start)
    assert Counter(record.role for record in result.history)["sketch"] <= SIZE + 1
    assert len(draws) >= 15
    assert result.loss < -18.0


def test_the_point_reported_is_not_the_luckiest_one():
    all_excess = []
    for seed in range(6):
        start, rng = np.full(SIZE, -1.0), np.random.default_rng(seed)
        part = part_at(start, lucky, max_solves=300)
        search = RuggedSearch(part, Evolution(part, start, 1.0, 10, rng), start, rng)
        solved = drive(search.rounds(), lucky, most=290)
        luckiest = min(solved, key=lambda evaluation: evaluation.loss).point.x
        excess = [float(np.sum((x - 1.0) ** 2)) for x in (luckiest, part._search.notes.recommended)]
        all_excess.append(excess)
        streams = Counter(evaluation.point.stream for evaluation in solved)
        assert len(streams) > 20
        assert min(streams.values()) >= 2
    of_luckiest, of_reported = np.mean(all_excess, axis=0)
    assert of_reported < 0.9 * of_luckiest


def test_a_gain_of_one_draw_is_not_there_on_others():
    def loss(x, stream):
        return -float(x @ np.random.default_rng(stream).choice([-1.0, 1.0], SIZE))

    start = np.zeros(SIZE)
    part = part_at(start, loss)
    found = np.random.default_rng((0,)).choice([-1.0, 1.0], SIZE)
    gain = GainElsewhere(part, found)
    drive(gain.rounds(), loss)
    assert loss(found, (0,)) == -SIZE
    assert gain.mean < 0.4 * SIZE
    assert part.stream == (0,)


def judged(ratios, losses, loss=lambda x, _: float(np.sum(x))):
    """What is said of a descent and a population of these lowest losses, from 10."""
    part = part_at(np.zeros(SIZE), lambda *_: 10.0)
    rng = np.random.default_rng(0)
    descent = RegionSearch(part, part.start, losses[0], rng)
    population = Evolution(part, part.start, 1.0, 10, rng)
    population.lowest = losses[1]
    ruggedness = Ruggedness(part, descent, population)
    ruggedness.note(ratios, has_gained=True)
    judging, asked = ruggedness.judge(), 0
    try:
        local = next(judging)
        while True:
            asked += len(drive(local.rounds(), loss))
            local = judging.send(None)
    except StopIteration as stop:
        return stop.value, asked


@pytest.mark.parametrize(
    ("ratios", "losses", "expected"),
    [
        ([], [8.0, 5.0], (True, 0)),  # far ahead
        ([], [8.0, 7.0], (False, 0)),  # ahead, but no step tells
        ([0.0, 0.0], [8.0, 7.0], (False, 0)),
        ([-1.0, 0.0, 0.0, 0.0], [8.0, 7.0], (True, 0)),
        ([0.9, 0.0, 0.0, 0.0], [8.0, 7.0], (False, 0)),  # foreseen
        ([0.0, 0.0, 0.0, 0.0], [5.0, 11.0], (False, 0)),  # the population is hopeless
        ([0.0, 0.0, 0.0, 0.0], [5.0, 8.0], (True, 6)),  # gained nothing elsewhere
    ],
)
def test_what_tells_a_rugged_loss(ratios, losses, expected):
    assert judged(ratios, losses) == expected


def test_a_descent_drowned_by_noise_is_not_taken_for_a_rugged_loss():
    part, rng = part_at(np.zeros(SIZE), lambda *_: 10.0), np.random.default_rng(0)
    descent = RegionSearch(part, part.start, 8.0, rng)
    descent.model.noise = 0.1
    population = Evolution(part, part.start, 1.0, 10, rng)
    population.lowest = 7.0
    ruggedness = Ruggedness(part, descent, population)
    ruggedness.note([0.0] * 5, has_gained=False)
    with pytest.raises(StopIteration, match="False"):
        next(ruggedness.judge())
