"""`zo-bilevel init`: a file to start from, for each kind of inner solver."""

from importlib.resources import files
from pathlib import Path

import click

from zo_bilevel.support.errors import InputError, unknown_name_message

ADAPTERS = {
    "function": "a Python function",
    "batched": "a function that solves many points in one call",
    "command-line": "a program, with arguments or input files",
    "http": "a service that takes and gives JSON",
    "fmu": "a Functional Mock-up Unit (FMI 2 or 3)",
    "sklearn": "the hyper-parameters of a scikit-learn estimator",
    "linear-program": "a follower's linear or mixed-integer program",
    "torch-unroll": "a torch training loop, with exact derivatives",
    "prompt-api": "a prompt of a chat model, as settings in a .toml file",
}
PROMPT = "prompt-api"
_HELP = """Write a starter file for one kind of inner solver to FILE.

It runs as it is, on a small stand-in of its own (http, fmu and prompt-api need yours); the lines
to change are marked EDIT. FILE is ADAPTER_problem.py unless given, prompt_api.toml for prompt-api;
what is there is never written over.

\b
"""
_LIST = "\n".join(f"  {name:16}{what}" for name, what in ADAPTERS.items())


@click.command("init", short_help="Write a file to start from.", help=_HELP + _LIST)
@click.argument("adapter", metavar="ADAPTER", type=click.Choice(list(ADAPTERS)))
@click.argument("file", metavar="[FILE]", required=False)
def init_command(adapter: str, file: str | None) -> None:
    """Write the starter of an adapter."""
    is_prompt = adapter == PROMPT
    stem = adapter.replace("-", "_")
    path = write_starter(adapter, file or (f"{stem}.toml" if is_prompt else f"{stem}_problem.py"))
    click.echo(f"{path}: {ADAPTERS[adapter]}")
    command = f"prompt {path}" if is_prompt else f"run {path}:problem"
    click.echo(f"change the lines marked EDIT, then: zo-bilevel {command}")


def starter_text(adapter: str) -> str:
    """The starter of an adapter; `InputError` if there is no such adapter, with the nearest names.

    Example:
        >>> "import zo_bilevel as zb" in starter_text("function")
        True
    """
    if adapter not in ADAPTERS:
        raise InputError(unknown_name_message("adapter", adapter, ADAPTERS))
    # .txt, as they are data: nothing here may be imported, checked or shadow `http` and `sklearn`
    return (files("zo_bilevel.cli") / "starters" / f"{adapter}.txt").read_text(encoding="utf-8")


def write_starter(adapter: str, file: str) -> Path:
    """Write the starter of an adapter to a new file.

    Raises:
        InputError: If the file exists, its name does not fit, or it cannot be written.
    """
    path, text = Path(file), starter_text(adapter)
    suffix = ".toml" if adapter == PROMPT else ".py"
    if path.suffix != suffix:
        raise InputError(f"FILE must end in {suffix}, got {file!r}")
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(text.replace(f"FILE{suffix}", path.name))
    except FileExistsError:
        raise InputError(f"{file!r} is there already; give another FILE") from None
    except OSError as error:
        raise InputError(f"{file!r} cannot be written: {error.strerror}") from error
    return path
