"""A damaged store never gives another number, and never a raw traceback."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3

import numpy as np
import pytest
from click.testing import CliRunner

import zo_bilevel as zb
from zo_bilevel.cli.main import main
from zo_bilevel.comparison.stored_comparison import stored_comparisons
from zo_bilevel.comparison.stored_runs import exported, found_by
from zo_bilevel.store.theta_files import LARGE_THETA_BYTES

SPACE = zb.Space(a=zb.Real(-3, 3, (3,)), kind=zb.Choice(["x", "y"]))
FOREIGN = (None, 0, -1, 2**62, 1e308, float("inf"), "", "text\x1b", b"", b"\0" * 9, b"\x78\x9c")
LARGE = LARGE_THETA_BYTES // 8 + 100


class Solver:
    """Deterministic; a solve far out fails."""

    name = "solver"

    def __init__(self, size=4):
        self.wave = np.random.default_rng(0).normal(size=size)

    def __call__(self, phi):
        if phi["a"][0] > 2.0:
            raise ValueError("too far")
        return self.wave * (np.sin(phi["a"]).sum() + (phi["kind"] == "y"))


def solve(path, size=4, max_solves=14):
    solver = Solver(size)
    problem = zb.Problem(SPACE, solver, zb.SquaredError(np.zeros(size)))
    result = zb.minimize(problem, zb.RandomSearch(), max_solves=max_solves, store=path)
    return [(r.solve, r.loss, r.status) for r in result.history], result.x.tobytes()


def looked_at(path):
    """Everything that a store says of its runs."""
    with zb.Store(path, read_only=True) as store:
        found = {}
        for run in store.records():
            with contextlib.suppress(zb.StoreError):
                said = found_by(store, run)
                found[run.number] = (
                    said.loss,
                    said.solves,
                    said.improvements,
                    {name: np.asarray(value).tolist() for name, value in said.phi.items()},
                    list(exported(store, run)),
                )
        with contextlib.suppress(zb.StoreError):
            stored_comparisons(store, is_live=True)
        return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store, what a run on it gives, and what it says."""
    path = tmp_path_factory.mktemp("whole") / "runs.sqlite"
    answer = solve(path)
    solve(path, max_solves=20)  # more solves than the run asks for later
    assert solve(path) == answer
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return path, answer, looked_at(path)


def check(path, whole):
    """Reading gives the truth or a refusal; resuming gives the numbers, or a refusal by name."""
    _, answer, said = whole
    with contextlib.suppress(zb.StoreError):
        for number, facts in looked_at(path).items():
            assert said.get(number, facts) == facts
    try:
        found = solve(path)
    except zb.StoreError as error:
        found = str(error)
    is_usable = not isinstance(found, str)
    assert found == answer if is_usable else str(path) in found
    return is_usable


def flipped(data, rng):
    damaged = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 4)):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def truncated(data, rng):
    return data[: int(rng.integers(len(data)))]


def overwritten(data, rng):
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
    return data[:place] + rng.bytes(length) + data[place + length :]


@pytest.mark.parametrize(
    "count", [60, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
@pytest.mark.parametrize("damage", [flipped, truncated, overwritten])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_damaged_files(whole, tmp_path, damage, count):
    data, rng, usable = whole[0].read_bytes(), np.random.default_rng(1), 0
    for number in range(count):
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(damage(data, rng))
        usable += check(path, whole)
        for left in tmp_path.glob(f"{number}.sqlite*"):
            left.unlink()
    assert usable < count
    assert usable > 0 or damage is truncated


def columns(path):
    connection = sqlite3.connect(path)
    found = [
        (table, row[1])
        for table in ("runs", "solves")
        for row in connection.execute(f"PRAGMA table_info({table})")
    ]
    connection.close()
    return found


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_foreign_values_in_every_column(whole, tmp_path, step):
    for place, (table, column) in enumerate(columns(whole[0])):
        for value in FOREIGN[place % step :: step]:
            path = tmp_path / "foreign.sqlite"
            shutil.copy(whole[0], path)
            connection = sqlite3.connect(path, isolation_level=None)
            with contextlib.suppress(sqlite3.IntegrityError):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE number = ?", (value, 1 + place % 3)
                )
            connection.close()
            check(path, whole)
            for left in tmp_path.glob("foreign.sqlite*"):
                left.unlink()


@pytest.mark.parametrize("words", ["runs {0}", "show {0} 1", "export {0} 1", "resume {0} 1"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_command_line_on_damaged_files(whole, tmp_path, words):
    data, rng = whole[0].read_bytes(), np.random.default_rng(5)
    for number in range(25):
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(flipped(data, rng))
        answer = CliRunner().invoke(main, words.format(path).split())
        assert answer.exit_code in (0, 2), answer.output
        assert answer.exit_code == 0 or answer.stderr.startswith("Error: ")


@pytest.mark.parametrize("damage", [flipped, truncated, overwritten, lambda *_: None])
def test_damaged_files_of_large_solutions_are_solved_again(tmp_path, damage):
    path, rng = tmp_path / "runs.sqlite", np.random.default_rng(2)
    answer = solve(path, LARGE, 6)
    files = sorted((tmp_path / "runs.sqlite.theta").iterdir())
    assert files
    for file in files:
        data = damage(file.read_bytes(), rng)
        file.unlink() if data is None else file.write_bytes(data)
        assert solve(path, LARGE, 6) == answer
        assert {f.stat().st_size > LARGE_THETA_BYTES for f in files} == {True}
