"""A Functional Mock-up Unit (FMI 2 or 3) as an inner solver."""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike

from zo_bilevel.adapters.fmu.archive import FMUArchive, folder_kept
from zo_bilevel.problem.parameters import Choice, Integer, Parameter
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arguments import finite_number, one_of, refuse_unknown
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError, SolveTimeoutError, WrongShapeError
from zo_bilevel.support.packages import import_optional

REAL_TYPES = ("Real", "Float64", "Float32")
INTEGER_TYPES = (
    "Integer",
    "Enumeration",
    *(f"{u}Int{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)),
)
FATAL_STATUS = 4
"""After this status no function of the instance may be called, not even the one that frees it
(FMI 2.0.4, section 2.1.3); units of pythonfmu answer so and would corrupt memory."""
NOT_SETTABLE = ("calculatedParameter", "independent")


@final
class FMU:
    """Simulate an FMU for every solve; theta is its outputs at given times.

    Co-simulation or model exchange, by FMPy. The FMU runs inside this process: use a process
    dispatcher (`zb.Joblib`) for several at once and for FMUs that may crash or hang. Outputs are
    interpolated linearly between communication steps, whole numbers and truth values held.

    Args:
        path: The `.fmu` file, readable wherever solves run.
        outputs: Name of one output: theta is a vector. Several: a dict of vectors.
        times_s: Times of theta, increasing, at or after the start; the last one ends the
            simulation.
        parameters: Parameter of the space to FMU variable, for those whose names differ.
        start_values: Further variables to set, by FMU name.
        interface: "auto", "co-simulation" or "model-exchange".
        start_s: When the simulation starts.
        step_s: Communication step of co-simulation, step of the Euler solver, > 0; `None` for
            what the FMU suggests.
        solver: "CVode" or "Euler", for model exchange.
        tolerance: Relative tolerance of the integration, > 0; `None` for what the FMU suggests.
            Differences of solves see its error: for model exchange 1e-8 or less is well spent.
        timeout_s: Seconds after which a simulation is given up between two steps, or `None`.

    Raises:
        InputError: If the file is no FMU for this machine, or an argument breaks its rule. When a
            `Problem` is made: if a parameter is no variable of the FMU (with the nearest names),
            cannot be set, or is of another type.
        MissingPackageError: If FMPy is not installed.

    Example:
        >>> FMU("absent.fmu", outputs="h", times_s=[0.0, 1.0])
        Traceback (most recent call last):
        ...
        zo_bilevel.support.errors.InputError: there is no FMU file ...
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        outputs: str | Sequence[str],
        times_s: ArrayLike,
        parameters: Mapping[str, str] | None = None,
        start_values: Mapping[str, Any] | None = None,
        interface: Literal["auto", "co-simulation", "model-exchange"] = "auto",
        start_s: float = 0.0,
        step_s: float | None = None,
        solver: Literal["CVode", "Euler"] = "CVode",
        tolerance: float | None = None,
        timeout_s: float | None = None,
    ) -> None:
        import_optional("fmpy", "FMU", "fmu")
        self.archive = FMUArchive(Path(path), interface)
        self.outputs = outputs
        self.times_s = _checked_times(times_s, start_s)
        self.parameters = dict(parameters or {})
        self.start_values = dict(start_values or {})
        self.start_s, self.step_s, self.timeout_s = float(start_s), step_s, timeout_s
        self.solver, self.tolerance = solver, tolerance
        self._check_arguments()
        self.name = f"FMU({self.archive.path.stem})#{self._identity()}"

    def __call__(self, phi: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an array or a dict of them
        """Simulate once.

        Raises:
            SolveError: If the FMU reports an error.
            SolveTimeoutError: If it was given up at the time limit.
            WrongShapeError: If it ended the simulation early.
        """
        values = {self.parameters.get(name, name): _plain(value) for name, value in phi.items()}
        started = time.monotonic()
        try:
            result = self._simulate({**self.start_values, **values})
        except Exception as error:
            text = str(error) or type(error).__name__
            raise SolveError(f"FMU {self.archive.path.name} failed: {text}") from error
        reached = float(result["time"][-1])
        if reached < self.times_s[-1] - 1e-9 * max(1.0, abs(self.times_s[-1])):
            text = f"FMU {self.archive.path.name} stopped at time {reached:g} s"
            if self.timeout_s is not None and time.monotonic() - started >= self.timeout_s:
                raise SolveTimeoutError(f"{text}: timeout_s={self.timeout_s:g} was over")
            raise WrongShapeError(f"{text} of {self.times_s[-1]:g} s by itself")
        if isinstance(self.outputs, str):
            return self._sampled(result, self.outputs)
        return {name: self._sampled(result, name) for name in self.outputs}

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit the FMU, before the first solve.

        Raises:
            InputError: Naming the parameter and the nearest variables.
        """
        owner = f"FMU {self.archive.path.name}"
        refuse_unknown(owner, "parameter in parameters:", self.parameters, space.names)
        settable = [name for name, v in self.archive.variables.items() if _is_settable(v)]
        for name, parameter in space.parameters.items():
            target = self.parameters.get(name, name)
            if target not in self.archive.variables:
                refuse_unknown(owner, "variable", [target], settable)
            variable = self.archive.variables[target]
            if target not in settable:
                raise InputError(
                    f"{owner}: variable {target!r} cannot be set: its causality is "
                    f"{variable.causality}, its variability {variable.variability}"
                )
            _check_type(owner, target, variable, parameter)

    def __repr__(self) -> str:
        return f"FMU({self.archive.path.name!r}, outputs={self.outputs!r})"

    def _simulate(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a structured array
        from fmpy.fmi1 import FMICallException
        from fmpy.simulation import instantiate_fmu, simulate_fmu

        archive = self.archive
        folder = archive.unpacked()
        with folder_kept():
            instance = instantiate_fmu(folder, archive.description, archive.kind)
        may_free = True
        try:
            return simulate_fmu(
                folder,
                validate=False,
                model_description=archive.description,
                fmu_instance=instance,
                fmi_type=archive.kind,
                start_time=self.start_s,
                stop_time=float(self.times_s[-1]),
                solver=self.solver,
                step_size=self.step_s,
                output_interval=self.step_s,
                relative_tolerance=self.tolerance,
                start_values=dict(values),
                output=list(self._output_names()),
                record_events=False,
                timeout=self.timeout_s,
            )
        except FMICallException as error:
            may_free = error.status != FATAL_STATUS
            raise
        finally:
            if may_free:
                instance.freeInstance()

    def _sampled(self, result: Any, name: str) -> FloatArray:  # noqa: ANN401 - a structured array
        known, values = result["time"], np.asarray(result[name], dtype=np.float64)
        if self.archive.variables[name].type in REAL_TYPES:
            sampled: FloatArray = np.interp(self.times_s, known, values)
            return sampled
        before = np.searchsorted(known, self.times_s + 1e-12, side="right") - 1
        held: FloatArray = values[np.maximum(before, 0)]
        return held

    def _output_names(self) -> tuple[str, ...]:
        return (self.outputs,) if isinstance(self.outputs, str) else tuple(self.outputs)

    def _check_arguments(self) -> None:
        owner = f"FMU {self.archive.path.name}"
        variables = self.archive.variables
        if not self._output_names():
            raise InputError("outputs must name at least one output")
        refuse_unknown(owner, "output", self._output_names(), variables)
        refuse_unknown(owner, "variable in start_values:", self.start_values, variables)
        for name in self._output_names():
            if variables[name].type not in (*REAL_TYPES, *INTEGER_TYPES, "Boolean"):
                raise InputError(f"{owner}: output {name!r} is a {variables[name].type}, no number")
        one_of("solver", self.solver, ("CVode", "Euler"))
        for name in ("step_s", "tolerance", "timeout_s"):
            if (value := getattr(self, name)) is not None:
                finite_number(name, value, "> 0")

    def _identity(self) -> str:
        """A hash of all that decides the answer."""
        parts = (
            self.archive.digest,
            self.archive.kind,
            self._output_names(),
            isinstance(self.outputs, str),
            self.times_s.tobytes(),
            sorted(self.parameters.items()),
            sorted(self.start_values.items(), key=repr),
            self.start_s,
            self.step_s,
            self.solver,
            self.tolerance,
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def _checked_times(times_s: ArrayLike, start_s: float) -> FloatArray:
    times = np.asarray(times_s, dtype=np.float64)
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all():
        raise InputError(f"times_s must be a vector of finite times, got shape {times.shape}")
    if (np.diff(times) <= 0).any() or times[0] < start_s or times[-1] <= start_s:
        raise InputError(f"times_s must increase and lie at or after start_s={start_s:g}")
    return times


def _is_settable(variable: Any) -> bool:  # noqa: ANN401 - FMPy's record of a variable
    if variable.variability == "constant" or variable.causality in NOT_SETTABLE:
        return False
    if variable.causality in ("parameter", "structuralParameter", "input"):
        return True
    return variable.initial in ("exact", "approx") or (
        variable.initial is None and variable.start is not None
    )


def _check_type(owner: str, name: str, variable: Any, parameter: Parameter) -> None:  # noqa: ANN401 - FMPy's record of a variable
    kind = variable.type
    if parameter.shape and not getattr(variable, "dimensions", ()):
        raise InputError(f"{owner}: variable {name!r} is one value, not an array")
    if isinstance(parameter, Choice):
        wanted: type | tuple[type, ...] = {"Boolean": bool, "String": str}.get(kind, (int, float))
        fits = all(isinstance(option, wanted) for option in parameter.options)
    else:
        fits = kind in REAL_TYPES or (isinstance(parameter, Integer) and kind in INTEGER_TYPES)
    if not fits:
        raise InputError(
            f"{owner}: variable {name!r} is a {kind}, a {type(parameter).__name__} does not fit"
        )


def _plain(value: Any) -> Any:  # noqa: ANN401 - a number, array or option
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
