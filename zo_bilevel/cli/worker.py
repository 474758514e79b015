"""`zo-bilevel worker`: solves for runs on other machines."""

import signal

import click

from zo_bilevel.cli.options import POSITIVE_SECONDS


@click.command("worker")
@click.argument("place", metavar="STORE")
@click.argument("subject", metavar="TASK")
@click.option("--set", "options", multiple=True, metavar="NAME=VALUE", help="Option of the task.")
@click.option("--timeout", type=POSITIVE_SECONDS, help="Seconds that one solve may take.")
@click.option("--idle", type=POSITIVE_SECONDS, help="Leave after so many seconds without work.")
def worker_command(
    place: str, subject: str, options: tuple[str, ...], timeout: float | None, idle: float | None
) -> None:
    """Take solves of TASK from the queue in STORE until Ctrl-C or SIGTERM.

    STORE is what the run calls its zb.Queue: postgresql://user@host/database, or a file. TASK is
    the same as the run's: a task's name or FILE.py:NAME. Run and workers share a secret of at least
    16 characters, in the environment variable ZO_BILEVEL_TOKEN.
    """
    from zo_bilevel.cli.loading import load_subject, parse_settings
    from zo_bilevel.store.queue.worker import work

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    task = load_subject(subject, parse_settings("--set", options))

    def say(text: str) -> None:
        click.echo(text, err=True)

    try:
        solves = work(place, task.problem, timeout_s=timeout, idle_s=idle, say=say)
    except KeyboardInterrupt:
        say("left; if a solve ran, another worker takes it up")
    else:
        say(f"left after {solves} solves: nothing to do")
