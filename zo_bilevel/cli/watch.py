"""`zo-bilevel watch` and `zo-bilevel report`: what a store holds, as a page."""

from pathlib import Path

import click

store_argument = click.argument("store", metavar="STORE")


@click.command("watch")
@store_argument
@click.option("--host", default="127.0.0.1", help="Where to serve; others need --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="0 takes a free one.")
@click.option("--token", help="What visitors must know; at least 16 characters.")
def watch_command(store: str, host: str, port: int, token: str | None) -> None:
    """Serve a live page about STORE on this machine, until Ctrl-C. It reads and never writes."""
    from zo_bilevel.report.watch import serve

    serve(store, host=host, port=port, token=token, say=lambda place: click.echo(f"at {place}"))


@click.command("report")
@store_argument
@click.argument("path", metavar="FILE.html")
@click.option("--problem", help="Only this one of the problems in the store.")
@click.option("--target", type=float, help="Loss that counts as solved.")
@click.option("--live", is_flag=True, help="Take runs that have not ended, too.")
def report_command(
    store: str, path: str, problem: str | None, target: float | None, live: bool
) -> None:
    """Write a page about the runs of STORE."""
    from zo_bilevel.comparison.stored_comparison import stored_comparisons
    from zo_bilevel.report.page import check_report_path, write_report
    from zo_bilevel.run.runs import Target
    from zo_bilevel.store.places import open_store

    check_report_path(path)
    goal = None if target is None else Target("loss", target)
    with open_store(store, read_only=True) as opened:
        found = stored_comparisons(opened, problem, target=goal, is_live=live)
    title = Path(store).name if len(found) > 1 else ""
    click.echo(f"report: {write_report(found, path, title=title)}")
    for note in dict.fromkeys(note for comparison in found for note in comparison.notes):
        click.echo(note, err=True)
