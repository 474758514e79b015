"""Where a store lies and who uses it: directories, disks, threads, processes, texts, seeds."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from processes import WORKING

import zo_bilevel as zb
from zo_bilevel.store.records import StoredRun
from zo_bilevel.store.theta_files import LARGE_THETA_BYTES
from zo_bilevel.support.run_locks import lock_run, unlock_run

SPACE = zb.Space(a=zb.Real(0, 4))


def minimize(path, inner, max_solves=6, **options):
    problem = zb.Problem(SPACE, inner, name="p", **options.pop("problem", {}))
    return zb.minimize(problem, zb.RandomSearch(), max_solves=max_solves, store=path, **options)


def test_a_solver_may_change_the_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    wave = np.random.default_rng(0).normal(size=LARGE_THETA_BYTES // 8 + 9)

    def moving(phi):
        os.chdir(tmp_path / "elsewhere")
        return wave * phi["a"]

    problem = zb.Problem(SPACE, moving, zb.SquaredError(wave), name="moving")
    for _ in range(2):
        os.chdir(tmp_path)
        zb.minimize(problem, zb.RandomSearch(), max_solves=3, store="runs.sqlite")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"elsewhere", "runs.sqlite", "runs.sqlite.lock", "runs.sqlite.theta"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 2**63, 2**130 + 7])
def test_seeds_of_any_size(tmp_path, seed):
    path = tmp_path / "runs.sqlite"
    first = minimize(path, lambda phi: phi["a"], seed=seed)
    again = minimize(path, lambda phi: 1 / 0, seed=seed)
    assert first.loss == again.loss
    with zb.Store(path, read_only=True) as store:
        assert [run["seed"] for run in store.runs()] == [seed]


@pytest.mark.parametrize("text", ["\udcff\udc80", "nul \0 inside", "µ\u2028\x1b", "x" * 100_000])
def test_error_texts_of_any_kind(tmp_path, text):
    path = tmp_path / "runs.sqlite"

    def failing(phi):
        if phi["a"] > 2.0:
            raise ValueError(text)
        return phi["a"]

    first = minimize(path, failing, 20)
    again = minimize(path, lambda phi: 1 / 0, 20)
    assert first.failures == again.failures
    assert first.failures["failed"] > 0
    with zb.Store(path, read_only=True) as store:
        errors = [solve.error for solve in store.solves(store.find_run(1)) if solve.error]
    assert len(errors) == first.failures["failed"]
    assert all("ValueError" in error for error in errors)


ON_A_READ_ONLY_DISK = """
    mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 77
    touch {folder}/x 2>/dev/null && exit 77
    exec {python} -m zo_bilevel {words}
"""


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("has_index", [False, True])
def test_reading_works_on_a_read_only_disk(tmp_path, is_killed, has_index):
    path = tmp_path / "runs.sqlite"
    store = zb.Store(path)
    minimize(store, lambda phi: phi["a"])
    folder = tmp_path / "disk"
    folder.mkdir()
    if is_killed:  # what lies there while a run is open, or was killed
        for name in ("runs.sqlite", "runs.sqlite-wal", *(["runs.sqlite-shm"] * has_index)):
            shutil.copy(tmp_path / name, folder)
    store.close()
    if not is_killed:
        shutil.copy(path, folder)
    words = f"runs {folder / 'runs.sqlite'}"
    script = ON_A_READ_ONLY_DISK.format(folder=folder, python=sys.executable, words=words)
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, to make a disk read-only")
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True)
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip("no disk can be made read-only here")
    assert ran.returncode == 0, ran.stderr
    assert "1 run in" in ran.stdout
    assert "finished" in ran.stdout


def test_a_second_process_is_refused_until_the_first_has_died(tmp_path):
    path, calls = tmp_path / "runs.sqlite", []
    command = [sys.executable, "-c", WORKING, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "solving\n"
        with pytest.raises(zb.StoreError, match=r"run 1 of store .* is being worked on by somebo"):
            minimize(path, calls.append)
        assert calls == []
        minimize(path, lambda phi: phi["a"], seed=1)  # another run of the same store
        with zb.Store(path, read_only=True) as store:
            assert [run.status for run in store.records()] == ["running", "finished"]
        process.kill()
    assert minimize(path, lambda phi: phi["a"]).solves == 6


def test_a_second_thread_is_refused_and_the_run_is_free_afterwards(tmp_path):
    path, refusals, inside = tmp_path / "runs.sqlite", [], threading.Event()

    def second():
        inside.wait(20)
        try:
            minimize(path, lambda phi: phi["a"])
        except zb.StoreError as error:
            refusals.append(str(error))

    thread = threading.Thread(target=second)
    thread.start()

    def first(phi):
        inside.set()
        thread.join(20)
        return phi["a"]

    assert minimize(path, first).solves == 6
    assert len(refusals) == 1
    for wrong in (ZeroDivisionError, KeyboardInterrupt):

        def failing(record, wrong=wrong):
            raise wrong

        with contextlib.suppress(wrong):
            minimize(path, first, callback=failing)
    assert minimize(path, first).solves == 6


def test_a_lock_is_of_one_run_and_is_given_back(tmp_path):
    path = tmp_path / "runs.lock"
    assert lock_run(path, 1)
    assert not lock_run(path, 1)
    assert lock_run(path, 2)
    unlock_run(path, 1)
    assert lock_run(path, 1)
    assert not lock_run(path, 2)  # letting go of one keeps the other
    for run in (1, 2, 3):
        unlock_run(path, run)
    assert lock_run(path, 2)
    unlock_run(path, 2)


def test_a_forked_child_does_not_hold_the_run_when_its_parent_is_gone(tmp_path):
    program = """
        import os, sys, time
        from pathlib import Path
        from zo_bilevel.support.run_locks import lock_run
        assert lock_run(Path(sys.argv[1]), 1)
        if os.fork():
            os._exit(0)
        print("child", flush=True)
        time.sleep(60)
    """
    path = tmp_path / "runs.lock"
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout.readline() == b"child\n"
        process.wait(20)
        assert lock_run(path, 1)
        unlock_run(path, 1)
        os.killpg(process.pid, 9)


def test_a_run_that_was_damaged_is_listed_as_such_and_written_anew(tmp_path):
    path = tmp_path / "runs.sqlite"
    first = minimize(path, lambda phi: phi["a"])
    minimize(path, lambda phi: phi["a"], seed=1)
    with zb.Store(path) as store:
        store.connection.execute("UPDATE runs SET stop_reason = 'x' WHERE number = 1")
        assert store.runs()[0] == {"id": 1, "status": "damaged"}
        assert store.find_run(2).status == "finished"
        with pytest.raises(zb.StoreError, match=r"run 1 of store .* is damaged; run what made it"):
            store.find_run(1)
    assert minimize(path, lambda phi: 1 / 0).loss == first.loss
    with zb.Store(path) as store:
        assert [run.status for run in store.records()] == ["finished"] * 2


def dice(seed):
    return np.random.default_rng(seed).normal


def test_a_damaged_solve_of_a_noisy_solver_does_not_move_later_ones_up(tmp_path):
    path = tmp_path / "runs.sqlite"

    class Repeating(zb.Method):
        name = "repeating"

        def rounds(self, search):
            for _ in range(6):
                yield [zb.Point(search.start)]
            return "done"

    def losses(seed):
        draw = dice(seed)
        problem = zb.Problem(SPACE, lambda phi: float(draw()), name="dice")
        result = zb.minimize(problem, Repeating(), max_solves=6, store=path)
        return [record.loss for record in result.history if record.role != "confirm"]

    before = losses(0)
    with zb.Store(path) as store:
        damaged = store.index(1)[2][0]
        store.connection.execute("UPDATE solves SET seconds = 9 WHERE number = ?", (damaged,))
    after = losses(1)
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        *(True, True, False, True, True, True)
    ]
    assert losses(2) == after


def test_a_store_that_is_no_place_is_refused_by_type():
    with pytest.raises(zb.InputError, match="store must be a file or an open store, got int"):
        minimize(7, lambda phi: phi["a"])


def test_a_run_keeps_when_it_was_created(tmp_path):
    with zb.Store(tmp_path / "runs.sqlite") as store:
        first = store.begin(StoredRun(identity="x"))
        store.release(first.number)
        again = store.begin(StoredRun(identity="x"))
        assert again == dataclasses.replace(first, updated=again.updated)
