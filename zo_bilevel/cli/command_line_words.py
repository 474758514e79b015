"""The words of a command line as the store keeps them: enough to run it again, and no secret."""

import re

import click

from zo_bilevel.cli.options import WORDS_KEY

HIDDEN_WORD = "<hidden>"
_SECRET = re.compile(r"(?i)[^=]*(key|token|secret|passw|credential|auth)[^=]*=")
_NOT_KEPT = ("--store", "--dispatch")
"""Places, which may hold a password, and may be others when the run is resumed."""


def words_to_store(context: click.Context) -> list[str]:
    """The words that `zo-bilevel` was called with.

    Returns:
        The words without `--store` and `--dispatch`, which may be elsewhere when the run is
        resumed; the values of settings that sound like secrets are hidden.
    """
    words: list[str] = []
    given = iter(context.find_root().meta.get(WORDS_KEY, ()))
    for word in given:
        if word in _NOT_KEPT:
            next(given, None)
        elif word.partition("=")[0] not in _NOT_KEPT:
            words.append(hide_secret(word))
    return words


def hide_secret(word: str) -> str:
    """A word of a command line, or what stands in for it.

    Example:
        >>> hide_secret("size=64"), hide_secret("--set=api_key=abc")
        ('size=64', '--set=api_key=<hidden>')
    """
    option, equals, rest = word.partition("=") if word.startswith("--") else ("", "", word)
    found = _SECRET.match(rest)
    return f"{option}{equals}{found.group()}{HIDDEN_WORD}" if found else word
