"""A run or a comparison as pandas tables."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zo_bilevel.comparison.columns import run_values
from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.run.result import Record, Result
from zo_bilevel.support.packages import import_optional


def history_frame(result: Result) -> Any:  # noqa: ANN401 - a DataFrame
    """The solves of a run, one row each, indexed by solve.

    Returns:
        A `DataFrame` with the columns of `Record`; in the place of `phi` one column a number,
        "a" or "field[3]", or "phi.a" where `Record` has the name itself.

    Raises:
        MissingPackageError: If pandas is not installed.
    """
    own = [field.name for field in dataclasses.fields(Record) if field.name != "phi"]
    rows = [
        {**{name: getattr(record, name) for name in own}, **_numbers(record.phi, own)}
        for record in result.history
    ]
    columns = [name for name in own if name != "theta"]
    columns += [*_numbers(result.phi, own), "theta"]
    return (
        import_optional("pandas", "a data frame", "integrations")
        .DataFrame(rows, columns=columns)
        .set_index("solve")
    )


def _numbers(phi: Mapping[str, Any], taken: Sequence[str]) -> dict[str, Any]:
    """Every number of named values under a name of its own."""
    numbers: dict[str, Any] = {}
    for name, value in phi.items():
        name = f"phi.{name}" if name in taken else name
        if isinstance(value, np.ndarray):
            numbers |= {
                f"{name}[{', '.join(map(str, index))}]": item
                for index, item in np.ndenumerate(value)
            }
        else:
            numbers[name] = value
    return numbers


def comparison_frame(comparison: Comparison) -> Any:  # noqa: ANN401 - a DataFrame
    """The runs of a comparison, one row each; `MissingPackageError` if pandas is not installed.

    Returns:
        A `DataFrame`: method, seed, status, loss, solves, rounds, seconds, how soon the target
        was reached, meta-parameters that are single values.
    """
    rows = [run_values(run, comparison.target) for run in comparison.runs]
    return import_optional("pandas", "a data frame", "integrations").DataFrame(rows)
