"""`zo-bilevel doctor`: what about ten solves tell before a budget is spent."""

import click

from zo_bilevel.cli.dispatch import dispatcher_of
from zo_bilevel.cli.options import POSITIVE_SECONDS, with_fixed
from zo_bilevel.support.tables import wrapped


@click.command("doctor")
@click.argument("subject", metavar="TASK")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of start and solves.")
@click.option("--timeout", type=POSITIVE_SECONDS, help="Seconds one solve may take.")
@click.option("--initial", multiple=True, metavar="NAME=VALUE", help="Where; may be given again.")
@click.option("--fix", multiple=True, metavar="NAME=VALUE", help="Keep a parameter at a value.")
@click.option("--set", "options", multiple=True, metavar="OPTION=VALUE", help="Option of the task.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor_command(
    subject: str,
    seed: int,
    timeout: float | None,
    initial: tuple[str, ...],
    fix: tuple[str, ...],
    options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Try TASK with ten solves: noise, speed, what can be sent to other processes.

    Suggests radius, difference scheme, directions, workers and time limit. TASK is a task's name or
    FILE.py:NAME. With --timeout the solves run in a process of their own, and a hang is survived.
    """
    from zo_bilevel.cli.loading import load_subject, parse_settings
    from zo_bilevel.run.doctor import doctor
    from zo_bilevel.support.json_data import to_json, to_plain

    start = parse_settings("--initial", initial)
    task = load_subject(subject, parse_settings("--set", options))
    task = with_fixed(task, parse_settings("--fix", fix))
    with dispatcher_of(1, timeout, is_process=timeout is not None) as dispatcher:
        found = doctor(
            task.problem, initial={**task.start(seed), **start}, dispatcher=dispatcher, seed=seed
        )
    if as_json:
        click.echo(to_json({"task": task.name, **to_plain(found), "lines": found.lines()}))
        return
    click.echo("\n".join(wrapped(f"{task.name}: what {found.solves} solves tell")) + "\n")
    for line in found.lines():
        click.echo("\n".join(wrapped(f"- {line}")))
