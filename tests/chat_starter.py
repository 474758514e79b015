"""The starter of `zo-bilevel prompt FILE.toml`, asked of a scripted model."""

import pytest
from chat_servers import completion
from click.testing import CliRunner

from zo_bilevel.cli.init import starter_text
from zo_bilevel.cli.main import main


def years(body):
    """The year with a full stop, unless told to write only the year."""
    messages = body["messages"]
    words = messages[-1]["content"].replace(".", "").split()
    year = next((word for word in words if len(word) == 4 and word.isdecimal()), "1900")
    only = "only the" in messages[0]["content"] and messages[0]["role"] == "system"
    return 200, completion(year if only else f"{year}.", prompt_tokens=len(str(messages)))


def starter(server):
    """The starter's settings for this server."""
    return starter_text("prompt-api").replace("http://127.0.0.1:8000/v1", server.url)


def commands():
    """A fixture that runs `zo-bilevel prompt a.toml`, with the starter or another text in it."""

    @pytest.fixture(name="command")
    def made(server, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a.toml").write_text(starter(server))

        def run(*words, text=None):
            if text is not None:
                (tmp_path / "a.toml").write_text(text)
            return CliRunner().invoke(main, ["prompt", "a.toml", *words])

        return run

    return made
