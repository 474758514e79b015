"""`zo-bilevel tasks` and `zo-bilevel methods`: what there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from zo_bilevel.support.errors import MissingPackageError
from zo_bilevel.support.tables import Grid

if TYPE_CHECKING:
    from zo_bilevel.problem.space import Space


@click.command("tasks")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def tasks_command(as_json: bool) -> None:
    """List the tasks that come with the package."""
    from zo_bilevel import tasks
    from zo_bilevel.support.json_data import to_json

    found = [tasks.load(name) for name in tasks.NAMES]
    if as_json:
        facts = [
            {
                "name": task.name,
                "summary": task.summary,
                "parameters": list(task.problem.space.names),
                "size": task.problem.space.size,
                "truth": task.truth,
                "target_loss": task.target_loss,
                "target_error": task.target_error,
                "published": task.published,
                "max_solves": task.max_solves,
            }
            for task in found
        ]
        click.echo(to_json(facts))
        return
    rows = tuple((t.name, t.summary, _sizes(t.problem.space)) for t in found)
    notes = ("run one: zo-bilevel run NAME", "one of your own: zo-bilevel run FILE.py:NAME")
    click.echo(Grid("tasks", ("name", "what", "parameters"), rows, notes, labels=3).text())


def _sizes(space: Space) -> str:
    shapes = {name: p.shape for name, p in space.parameters.items()}
    return ", ".join(f"{n}{list(shape)}" if shape else n for n, shape in shapes.items())


@click.command("methods")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def methods_command(as_json: bool) -> None:
    """List the methods, ours and the baselines."""
    from zo_bilevel.methods.names import METHOD_FACTORIES, METHOD_FAMILIES
    from zo_bilevel.support.json_data import to_json

    rows = [(name, _summary(make)) for name, make in METHOD_FACTORIES.items()]
    rows += [
        (f"{family}:NAME", _first_line(make) or f"Any optimizer of {family} by its name there.")
        for family, make in METHOD_FAMILIES.items()
    ]
    if as_json:
        click.echo(to_json([{"name": name, "summary": summary} for name, summary in rows]))
        return
    click.echo(Grid("methods", ("name", "what"), tuple(rows), labels=2).text())


def _summary(make: Callable[[], Any]) -> str:
    """The first line of what the method's class says about itself, or what is missing."""
    try:
        return _first_line(type(make()))
    except MissingPackageError as error:
        return str(error)


def _first_line(documented: Any) -> str:  # noqa: ANN401 - a class or a function
    return (inspect.getdoc(documented) or "").split("\n", maxsplit=1)[0]
