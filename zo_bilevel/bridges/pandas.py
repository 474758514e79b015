"""A run or a comparison as pandas tables."""

from __future__ import annotations

import dataclasses
from typing import Any

from zo_bilevel.comparison.columns import run_values
from zo_bilevel.comparison.comparison import Comparison
from zo_bilevel.run.result import Record, Result
from zo_bilevel.support.packages import import_optional


def history_frame(result: Result) -> Any:  # noqa: ANN401 - a DataFrame
    """The solves of a run, one row each, indexed by solve.

    Args:
        result: What `minimize` gave.

    Returns:
        A `DataFrame` with the columns of `Record`.

    Raises:
        MissingPackageError: If pandas is not installed.
    """
    rows = [dataclasses.asdict(record) for record in result.history]
    columns = [field.name for field in dataclasses.fields(Record)]
    return (
        import_optional("pandas", "a data frame", "integrations")
        .DataFrame(rows, columns=columns)
        .set_index("solve")
    )


def comparison_frame(comparison: Comparison) -> Any:  # noqa: ANN401 - a DataFrame
    """The runs of a comparison, one row each.

    Args:
        comparison: What `compare` gave.

    Returns:
        A `DataFrame`: method, seed, status, loss, solves, rounds, seconds, how soon the target
        was reached, meta-parameters that are single values.

    Raises:
        MissingPackageError: If pandas is not installed.
    """
    rows = [run_values(run, comparison.target) for run in comparison.runs]
    return import_optional("pandas", "a data frame", "integrations").DataFrame(rows)
