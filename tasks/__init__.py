"""Tasks: one file each, found by name.

A task file `tasks/some_name.py` offers `task(**options) -> Task`; its name on the command line is
`some-name`.
"""

import importlib

from zo_bilevel.problem.task import Task
from zo_bilevel.support.errors import InputError, unknown_name_message

NAMES: tuple[str, ...] = (
    "allen-cahn",
    "architecture",
    "burgers",
    "burgers-two",
    "condensation",
    "heat-field",
    "hyperparameters",
    "kdv",
    "online-adaptation",
    "prompts",
    "quadratic",
    "ridge-penalties",
)


def load(name: str, **options: object) -> Task:
    """Make a task by name.

    Args:
        name: One of `NAMES`.
        **options: Passed to the task ("size" of a field, for instance).

    Returns:
        The task.

    Raises:
        InputError: If there is no such task, with the nearest names.

    Example:
        >>> load("quadratic").name
        'quadratic'
    """
    if name not in NAMES:
        raise InputError(unknown_name_message("task", name, NAMES))
    module = importlib.import_module(f"zo_bilevel.tasks.{name.replace('-', '_')}")
    task: Task = module.task(**options)
    return task
