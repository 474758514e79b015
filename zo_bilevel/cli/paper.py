"""`zo-bilevel paper`: the tables of the paper on (FG)2U, run here and beside the published ones."""

import click

from zo_bilevel.cli.options import POSITIVE


@click.command("paper")
@click.argument(
    "table", metavar="TABLE", type=click.Choice(["condensation", "online-adaptation", "pde"])
)
@click.option(
    "--size",
    type=click.Choice(["smoke", "small", "full"]),
    default="small",
    show_default=True,
    help="smoke: seconds; small: minutes on two cores; full: as in the paper, a GPU or a day.",
)
@click.option("--seeds", type=POSITIVE, default=1, show_default=True, help="Runs of each row.")
@click.option("--path", metavar="FOLDER", help="With MNIST's IDX files, for condensation.")
@click.option("--data", metavar="FILE.npz", help="The paper's fields, for pde.")
@click.option("--questions", metavar="FILE.jsonl", help="Documents and questions of your own.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--dry-run", is_flag=True, help="Check shapes and memory, without computing.")
def paper_command(
    table: str,
    size: str,
    seeds: int,
    path: str | None,
    data: str | None,
    questions: str | None,
    device: str,
    dry_run: bool,
) -> None:
    """Run TABLE of arXiv 2406.14095 and print it beside the published numbers.

    TABLE is condensation (section 4.1), online-adaptation (4.2) or pde (4.3, Table F.3).
    """
    from zo_bilevel.cli import paper_dry_run, paper_tables

    def progress(line: str) -> None:
        click.echo(line, err=True)

    if dry_run:
        click.echo(paper_dry_run.dry_run(table, size, path=path, device=device).text())
        return
    if table == "condensation":
        grid = paper_tables.condensation(size, seeds, path, device, progress)
    elif table == "pde":
        grid = paper_tables.pde(size, seeds, data, progress)
    else:
        grid = paper_tables.online_adaptation(size, seeds, questions, device, progress)
    click.echo(grid.text())
