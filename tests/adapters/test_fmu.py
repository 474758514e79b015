"""FMU against real units: FMI 2 co-simulation and model exchange, FMI 3 co-simulation."""

from __future__ import annotations

import inspect
import pickle
import re
import shutil
import subprocess
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_programs import PROGRAMS

import zo_bilevel as zb
from zo_bilevel.adapters import FMU
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.errors import InputError, SolveError, SolveTimeoutError, WrongShapeError

fmpy = pytest.importorskip("fmpy", reason="FMPy is not installed")

TIMES = np.linspace(0, 5, 101)
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture(scope="session")
def spring(tmp_path_factory):
    builder = pytest.importorskip("pythonfmu.builder", reason="pythonfmu is not installed")
    folder = tmp_path_factory.mktemp("spring")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder.FmuBuilder.build_FMU(PROGRAMS / "spring.py", dest=folder)
    return folder / "Spring.fmu"


def compiled(folder: Path, version: int, platform: str, classes) -> Path:
    """Build a C unit; functions that it does not need are stubs that fail."""
    source = PROGRAMS / f"decay_fmi{version}.c"
    wanted = {n for c in classes for n, _ in inspect.getmembers(c) if n.startswith(f"fmi{version}")}
    there = set(re.findall(rf"\b(fmi{version}\w+)\(", source.read_text()))
    stubs = folder / "stubs.c"
    stubs.write_text("".join(f"int {name}(void) {{ return 3; }}\n" for name in wanted - there))
    library, unit = folder / "decay.so", folder / f"decay{version}.fmu"
    headers = f"-I{Path(fmpy.__file__).parent / 'c-code'}"
    command = ["gcc", "-shared", "-fPIC", "-w", headers, "-o", library, source, stubs, "-lm"]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(unit, "w") as archive:
        archive.write(PROGRAMS / f"decay_fmi{version}.xml", "modelDescription.xml")
        archive.write(library, f"binaries/{platform}/decay.so")
        archive.writestr("resources/readme.txt", "none")
    return unit


@pytest.fixture(scope="session")
def exchange(tmp_path_factory):
    from fmpy.fmi2 import FMU2Model

    return compiled(tmp_path_factory.mktemp("fmi2"), 2, fmpy.platform, [FMU2Model])


@pytest.fixture(scope="session")
def third(tmp_path_factory):
    from fmpy.fmi3 import FMU3Slave

    return compiled(tmp_path_factory.mktemp("fmi3"), 3, fmpy.platform_tuple, [FMU3Slave])


def test_a_co_simulation_unit_gives_its_outputs_at_the_times_asked(spring):
    solver = FMU(spring, outputs="x", times_s=TIMES, step_s=0.05)
    space = zb.Space(k=zb.Real(1, 9), c=zb.Real(0, 1))
    zb.Problem(space, solver)
    x = solver({"k": 4.0, "c": 0.2})
    frequency = np.sqrt(4 - 0.01)
    wave = np.cos(frequency * TIMES) + 0.1 / frequency * np.sin(frequency * TIMES)
    assert x.shape == (101,)
    np.testing.assert_allclose(x, np.exp(-0.1 * TIMES) * wave, atol=0.03)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(solver))({"k": 4.0, "c": 0.2}), x)
    assert not np.array_equal(solver({"k": 5.0, "c": 0.2}), x)


def test_several_outputs_are_a_dict_and_whole_numbers_are_held(spring):
    solver = FMU(spring, outputs=["x", "crossings"], times_s=TIMES[1:] - 0.02, step_s=0.05)
    theta = solver({"k": 4.0})
    assert list(theta) == ["x", "crossings"]
    assert set(np.unique(theta["crossings"])) == {0, 1, 2, 3}
    assert (np.diff(theta["crossings"]) >= 0).all()


def test_values_of_every_type_reach_the_unit(spring):
    solver = FMU(spring, outputs="x", times_s=[0.5, 1.0], start_values={"c": 0.0})
    space = zb.Space(
        substeps=zb.Integer(1, 20),
        frozen=zb.Choice([True, False]),
        mode=zb.Choice(["normal", "raise"]),
        stiffness=zb.Real(1, 9),
    )
    named = FMU(spring, outputs="x", times_s=[0.5], parameters={"stiffness": "k"})
    zb.Problem(space, named)
    phi = {"substeps": 5, "frozen": True, "mode": "normal", "stiffness": 4.0}
    np.testing.assert_array_equal(named(phi), [1.0])
    assert named({**phi, "frozen": False}) < 0.9
    assert solver({"k": 4.0}).shape == (2,)


def test_an_error_and_a_time_limit_are_one_failed_solve(spring):
    solver = FMU(spring, outputs="x", times_s=[1.0], start_values={"mode": "raise"})
    with pytest.raises(SolveError, match=r"FMU Spring\.fmu failed: "):
        solver({"k": 4.0})
    slow = FMU(
        spring, outputs="x", times_s=TIMES, step_s=0.05, start_values={"mode": "slow"},
        timeout_s=0.3,
    )  # fmt: skip
    with pytest.raises(SolveTimeoutError, match=r"stopped at time .* timeout_s=0\.3 was over"):
        slow({"k": 4.0})


@needs_gcc
@pytest.mark.parametrize(("method", "tolerance"), [("CVode", 1e-6), ("Euler", 3e-2)])
def test_a_model_exchange_unit_is_integrated_here(exchange, method, tolerance):
    solver = FMU(
        exchange,
        outputs="x",
        times_s=TIMES,
        solver=method,
        step_s=0.05,
        tolerance=1e-8,
        parameters={"rate": "body.rate"},
    )
    zb.Problem(zb.Space(rate=zb.Real(0, 3), start=zb.Real(0, 2)), solver)
    zb.Problem(zb.Space({"body.rate": zb.Real(0, 3)}), FMU(exchange, outputs="x", times_s=[1.0]))
    np.testing.assert_allclose(
        solver({"rate": 1.5, "start": 2.0}), 2 * np.exp(-1.5 * TIMES), atol=tolerance
    )
    outcome = Solve(solver)(Job(0, {"rate": -1.0, "start": 1.0}, 0))
    assert outcome.status == "failed"
    assert "fmi2ExitInitializationMode" in outcome.error


@needs_gcc
def test_an_fmi_3_unit_that_ends_early_has_the_wrong_shape(third):
    solver = FMU(third, outputs="x", times_s=TIMES, step_s=0.05)
    np.testing.assert_allclose(solver({"rate": 1.0, "floor": 0.0}), np.exp(-TIMES), atol=1e-9)
    with pytest.raises(WrongShapeError, match=r"stopped at time 1\.65 s of 5 s by itself"):
        solver({"rate": 1.0, "floor": 0.2})


@needs_gcc
@pytest.mark.parametrize(
    ("space", "message"),
    [
        (zb.Space(rates=zb.Real(0, 1)), "unknown variable 'rates'; did you mean 'body.rate'"),
        (zb.Space(x=zb.Real(0, 1)), "variable 'x' cannot be set: its causality is output"),
        (zb.Space(start=zb.Real(0, 1, shape=(2,))), "'start' is one value, not an array"),
        (zb.Space(start=zb.Choice(["a", "b"])), "'start' is a Real, a Choice does not fit"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_the_first_solve(exchange, space, message):
    with pytest.raises(InputError, match=message):
        zb.Problem(space, FMU(exchange, outputs="x", times_s=[1.0]))


def test_types_must_fit(spring):
    with pytest.raises(InputError, match="'substeps' is a Integer, a Real does not fit"):
        zb.Problem(zb.Space(substeps=zb.Real(0, 1)), FMU(spring, outputs="x", times_s=[1.0]))


@needs_gcc
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "y"}, "unknown output 'y'"),
        ({"outputs": []}, "outputs must name at least one"),
        ({"times_s": [1.0, 1.0]}, "times_s must increase"),
        ({"times_s": [-1.0, 1.0]}, "at or after start_s=0"),
        ({"times_s": [np.nan]}, "finite times"),
        ({"interface": "co-simulation"}, r"decay2\.fmu has \(model-exchange\)"),
        ({"solver": "cvode"}, "solver must be 'CVode' or 'Euler'"),
        ({"tolerance": 0}, "tolerance must be finite and > 0, got 0"),
        ({"step_s": 0}, "step_s must be finite and > 0, got 0"),
        ({"timeout_s": -1}, "timeout_s must be finite and > 0, got -1"),
        ({"start_values": {"strat": 1}}, "'strat'; did you mean 'start'"),
    ],
)
def test_bad_arguments_are_refused_by_name(exchange, options, message):
    with pytest.raises(InputError, match=message):
        FMU(exchange, **{"outputs": "x", "times_s": [1.0], **options})


def test_a_file_that_is_no_unit_is_refused(tmp_path):
    broken = tmp_path / "broken.fmu"
    broken.write_text("not a zip file")
    with pytest.raises(InputError, match=r"broken\.fmu is no FMU that FMPy can read"):
        FMU(broken, outputs="x", times_s=[1.0])
    with pytest.raises(InputError, match="there is no FMU file"):
        FMU(tmp_path / "absent.fmu", outputs="x", times_s=[1.0])
    foreign = tmp_path / "foreign.fmu"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.write(PROGRAMS / "decay_fmi2.xml", "modelDescription.xml")
        archive.writestr("binaries/win64/decay.dll", b"")
    with pytest.raises(InputError, match="is for win64, not for"):
        FMU(foreign, outputs="x", times_s=[1.0])


def test_an_fmu_that_fails_to_load_leaves_the_working_directory(spring, tmp_path):
    broken = tmp_path / "broken.fmu"
    with zipfile.ZipFile(spring) as whole, zipfile.ZipFile(broken, "w") as copy:
        for name in whole.namelist():
            is_library = name.startswith("binaries/") and name.endswith(".so")
            copy.writestr(name, b"no library" if is_library else whole.read(name))
    before = Path.cwd()
    unit = FMU(broken, outputs="x", times_s=TIMES)
    with pytest.raises(SolveError, match=r"FMU broken\.fmu failed"):
        unit({})
    assert Path.cwd() == before


def test_an_archive_that_would_fill_the_disk_is_refused(spring, monkeypatch):
    monkeypatch.setattr("zo_bilevel.adapters.fmu.archive.MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(InputError, match=r"Spring\.fmu would unpack to \d+ bytes, at most 1000"):
        FMU(spring, outputs="x", times_s=TIMES)
