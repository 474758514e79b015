"""A command-line program as an inner solver."""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

from zo_bilevel.adapters.command_line.failures import STDERR, STDIN, STDOUT, FailureReport
from zo_bilevel.adapters.command_line.inputs import SEED_FIELD, CommandInputs, PreparedSolve
from zo_bilevel.adapters.command_line.output import Parts, ReadColumns, Reader, Run
from zo_bilevel.adapters.command_line.process import run_program
from zo_bilevel.adapters.command_line.success import SuccessRules
from zo_bilevel.adapters.command_line.workspace import SolveFolder, Workspace
from zo_bilevel.adapters.seeding import solver_signature
from zo_bilevel.problem.solver_identity import content_hash
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import flatten_theta
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, SolveError, WrongShapeError

FilePath: TypeAlias = str | os.PathLike[str]

DEFAULT_TIMEOUT_S = 3600.0
"""A hang must not cost the night."""
THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@final
class CommandLine:
    """Run a program for every solve, in a fresh directory, and read theta from what it leaves.

    Parameters reach it as `{name}` fields of its arguments, as fields of input files that are
    written into the directory, or both; `{seed}` stands for the solve's seed unless a parameter
    has that name. There is no shell anywhere: whatever a value contains is part of one argument.
    A solve that fails, hangs or crashes is one failed solve; its directory is kept (the first
    few), with a script that repeats it by hand.

    Args:
        command: The program and its arguments, one item each. The program is looked up on the
            PATH, or from the current directory when it has a slash.
        files: Input files to write: name to Jinja2 template text, or to the `Path` of a template.
        inputs: Files that are copied into every directory as they are. Name large ones by their
            absolute path in the command or a template instead.
        standard_input: Template of what the program reads from standard input.
        output: How theta is read: `ReadColumns`, `ReadCSV`, `ReadJSON`, `ReadNumpy`,
            `ReadPattern`, or a function of a `Run`; a dict of them for a dict. Default: all numbers
            on standard output.
        timeout_s: Seconds a solve may take, > 0, one hour unless given; then its processes,
            grandchildren included, are killed. `None` for no limit.
        environment: Variables for the program beside those of this process. Their values are
            hidden from messages, kept logs and stores; change the problem's `version` when a
            value that changes the answer changes.
        threads: Value of OMP_NUM_THREADS and its like, or `None` to leave them as they are.
        success_statuses: Exit statuses that mean success.
        required_output: Regular expression that a good solve prints (either stream).
        forbidden_output: Regular expression that only a bad solve prints.
        expected_length: How many numbers theta has, or `None`.
        folder: Where directories are made; default the system's temporary directory.
        keep_failures: How many directories of failed solves are kept, over all workers.

    Raises:
        InputError: If an argument breaks its rule. When a `Problem` is made: if the program is
            not on the PATH, a field has no parameter, or no field uses a parameter.
        MissingPackageError: If there are templates and Jinja2 is not installed.

    Example:
        >>> solver = CommandLine(["echo", "{a}", "{b:.1f}"])
        >>> solver({"a": 0.1, "b": 2.0})
        array([0.1, 2. ])
    """

    def __init__(
        self,
        command: Sequence[FilePath],
        *,
        files: Mapping[str, str | Path] | None = None,
        inputs: Sequence[FilePath] = (),
        standard_input: str = "",
        output: Reader | Mapping[str, Reader] | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        environment: Mapping[str, str] | None = None,
        threads: int | None = 1,
        success_statuses: Sequence[int] = (0,),
        required_output: str = "",
        forbidden_output: str = "",
        expected_length: int | None = None,
        folder: FilePath | None = None,
        keep_failures: int = 10,
    ) -> None:
        self.inputs = CommandInputs(command, files or {}, inputs, standard_input)
        self.output: Reader = ReadColumns() if output is None else _reader(output)
        self.timeout_s = timeout_s
        self.expected_length = expected_length
        self.success = SuccessRules(tuple(success_statuses), required_output, forbidden_output)
        _check_limits(self.output, timeout_s, threads, expected_length)
        self._limits = {} if threads is None else dict.fromkeys(THREAD_LIMITS, str(int(threads)))
        self._environment = _checked_environment(environment or {})
        self._workspace = Workspace(folder, keep_failures)
        self.__signature__ = solver_signature(with_seed=SEED_FIELD in self.inputs.names)
        self.name = f"CommandLine({Path(self.inputs.program).name})#{self._identity()}"

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401 - number, array or dict
        """Run the program once.

        Raises:
            SolveError: If this solve failed, saying how, and where to look.
        """
        values = {SEED_FIELD: 0 if seed is None else seed, **phi}
        command: tuple[str, ...] = self.inputs.command
        with self._workspace.folder() as folder:
            try:
                prepared = self.inputs.prepare(values, folder.work)
                command = (self._program(), *prepared.arguments[1:])
                logs = self._run(command, prepared, folder)
                return self._read(Run(folder.work, logs, phi))
            except SolveError as error:
                report = FailureReport(folder, command, self._environment, self._limits)
                raise report.explain(error) from None

    def write(self, phi: Mapping[str, Any], folder: FilePath, *, seed: int = 0) -> Path:
        """Write the program's input files with values put in, to run it elsewhere.

        Args:
            phi: Values by name, such as `result.phi`.
            folder: Where; made when missing. Files of these names are overwritten.
            seed: For a `{seed}` field.

        Returns:
            The folder.

        Raises:
            SolveError: If a value cannot be written where its field is.

        Example:
            `solver.write(result.phi, "calibrated")`
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self.inputs.prepare({SEED_FIELD: seed, **phi}, path)
        return path

    def input_rounding(self, space: Space, x: FloatArray) -> FloatArray:
        """Steps of the parameters that are lost where they are written with few digits.

        Args:
            space: The parameters.
            x: Where, scaled, shape `(N,)`.

        Returns:
            Scaled, shape `(N,)`; 0 where every digit is written.
        """
        return self.inputs.rounding(space, x)

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit the command, before the first solve.

        Raises:
            InputError: Naming the program, field, parameter or option.
        """
        try:
            self._program()
        except SolveError as error:
            raise InputError(f"CommandLine: the program {self.inputs.program!r} {error}") from None
        self.inputs.check(space)

    def __repr__(self) -> str:
        return f"CommandLine({list(self.inputs.command)!r})"

    def _run(
        self, command: tuple[str, ...], prepared: PreparedSolve, folder: SolveFolder
    ) -> tuple[Path, Path]:
        """Run the program, apply the rules of success, and say where its logs are."""
        source, out, err = (folder.path / name for name in (STDIN, STDOUT, STDERR))
        source.write_text(prepared.standard_input, encoding="utf-8", newline="")
        try:
            with source.open("rb") as stdin, out.open("wb") as stdout, err.open("wb") as stderr:
                ending = run_program(
                    command,
                    folder=folder.work,
                    environment={**os.environ, **self._limits, **self._environment},
                    streams=(stdin, stdout, stderr),
                    timeout_s=self.timeout_s,
                )
        except (OSError, ValueError) as error:  # too long a command, no program, a zero byte
            raise SolveError(f"could not be started: {error}") from error
        self.success.check(ending, self.timeout_s, (out, err))
        return out, err

    def _read(self, run: Run) -> Any:  # noqa: ANN401 - number, array or dict
        try:
            theta = self.output(run)
            length = None if self.expected_length is None else flatten_theta(theta)[0].size
        except SolveError:
            raise
        except Exception as error:
            text = f"left output that cannot be read: {type(error).__name__}: {error}"
            raise SolveError(text) from error
        if length != self.expected_length:
            raise WrongShapeError(f"gave {length} numbers, expected_length={self.expected_length}")
        return theta

    def _program(self) -> str:
        """Where the program is, as an absolute path."""
        found = shutil.which(self.inputs.program, path=self._environment.get("PATH"))
        if found is None:
            raise SolveError("is not on the PATH, or cannot be executed")
        return os.path.abspath(found)

    def _identity(self) -> str:
        """A hash of all that decides what a solve returns, but for values of the environment."""
        parts = (
            self.inputs.identity(),
            content_hash(self.output),
            sorted(self._environment),
            self._limits,
            self.success,
            self.expected_length,
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def _reader(output: Reader | Mapping[str, Reader]) -> Reader:
    if not isinstance(output, Mapping):
        return output
    if not output or not all(map(callable, output.values())):
        raise InputError(f"output must hold readers by name, got {output!r}")
    return Parts(dict(output))


def _check_limits(
    output: object, timeout_s: object, threads: object, expected_length: object
) -> None:
    """Refuse what cannot work, by name and value."""
    if not callable(output):
        raise InputError(f"output must be a reader or a function of a Run, got {output!r}")
    if timeout_s is not None:
        finite_number("timeout_s", timeout_s, "> 0")
    for name, count in (("threads", threads), ("expected_length", expected_length)):
        if count is not None:
            whole_number(name, count, least=1)


def _checked_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Check names and values; a message never shows a value."""
    for name, value in environment.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise InputError(f"environment must have names like MY_VARIABLE, got {name!r}")
        if not isinstance(value, str) or "\0" in value:
            raise InputError(f"environment: {name} must be text without zero bytes")
    return dict(environment)
