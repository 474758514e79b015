"""Records as rows and back: what was written, or nothing."""

from __future__ import annotations

import dataclasses
import math

import pytest

from zo_bilevel.store.records import StoredRun, StoredSolve
from zo_bilevel.store.rows import (
    MOST_DIGITS,
    RUN_COLUMNS,
    SOLVE_COLUMNS,
    row_of,
    run_of,
    seal_of,
    solve_of,
)

RUN = StoredRun("i", "p", "1", "m", 2**70, "s", b"\0x", "{}", created=1.5, updated=2.5, kept=1)
SOLVE = StoredSolve(
    *(1, 2, 3, b"key", b"point", 7, "trial", 1, "ok", 0.5, 0.25, "me", "", "layout", b"digest"),
    loss=1.25,
    judged="ok",
)


def sealed(values):
    return (*values, seal_of(values))


def test_a_row_gives_the_record_back():
    assert run_of(row_of(RUN), 9) == dataclasses.replace(RUN, number=9)
    row = row_of(SOLVE)
    assert len(row) == len(SOLVE_COLUMNS) + 1
    assert not {"theta", "number", "seal"} & set(SOLVE_COLUMNS)
    found = dataclasses.replace(SOLVE, number=4, theta=b"t", seal=row[-1])
    assert solve_of(row, 4, b"t") == found
    assert solve_of(row, 4).theta is None
    assert len(row[-1]) == 8
    assert type(solve_of((*row[:-1], bytearray(row[-1])), 4).seal) is bytes


@pytest.mark.parametrize("record", [RUN, SOLVE])
def test_any_value_that_changes_is_seen(record):
    row, read = row_of(record), run_of if record is RUN else solve_of
    for place in range(len(row)):
        for other in (None, 0, -1, 1.5, "x", b"x", row[place - 1]):
            if other != row[place] or type(other) is not type(row[place]):
                assert read((*row[:place], other, *row[place + 1 :]), 1) is None
    assert read(row[1:], 1) is None
    assert read(sealed(row[:-2]), 1) is None
    assert read(sealed((*row[:-1], 1)), 1) is None


def test_a_seal_tells_bytes_from_text_and_where_one_value_ends():
    values = [("ab", "c"), ("a", "bc"), (b"ab", "c"), (b"a", b"bc"), (b"ab", b"c"), (1,), ("1",)]
    assert len({seal_of(v) for v in (*values, (1.0,), (b"x",), (b"y",))}) == len(values) + 3
    assert seal_of(("\ud800",)) != seal_of(("\ud801",))


@pytest.mark.parametrize("name", SOLVE_COLUMNS)
def test_a_value_of_a_foreign_kind_is_no_record_though_its_seal_is_right(name):
    place, row = list(SOLVE_COLUMNS).index(name), row_of(SOLVE)[:-1]
    wanted = type(row[place])
    for other in (1, 1.0, "1", b"1", True):
        found = solve_of(sealed((*row[:place], other, *row[place + 1 :])), 1)
        assert (found is not None) is (type(other) is wanted), (name, other)


def test_numbers_that_a_database_has_no_word_for():
    for seed in (0, 2**200, 10 ** (MOST_DIGITS - 1)):
        run = dataclasses.replace(RUN, seed=seed)
        assert run_of(row_of(run), 0) == run
    place, row = list(RUN_COLUMNS).index("seed"), row_of(RUN)[:-1]
    for seed in (1, "-1", "1.0", "", "9" * (MOST_DIGITS + 1), None):
        assert run_of(sealed((*row[:place], seed, *row[place + 1 :])), 0) is None
    nan = dataclasses.replace(SOLVE, seconds=math.nan, loss=None)
    back = solve_of(row_of(nan), 0)
    assert math.isnan(back.seconds)
    assert back.loss is None
    assert row_of(nan)[list(SOLVE_COLUMNS).index("seconds")] is None
    endless = dataclasses.replace(SOLVE, loss=math.inf, cost=math.inf)
    assert solve_of(row_of(endless), 0).loss == math.inf


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("plain", "plain"),
        ("grüße", "grüße"),
        ("a\0b", "a\\x00b"),
        ("\ud800", "\\ud800"),
        ("ü\0\udc80", "ü\\x00\\udc80"),
    ],
)
def test_text_that_no_database_takes_is_written_as_an_escape(given, kept):
    assert solve_of(row_of(dataclasses.replace(SOLVE, error=given)), 0).error == kept
