"""Four texts of two topics, and a scripted model that tells them apart when asked well."""

import pytest
from chat_servers import completion

from zo_bilevel.adapters import ChatAPI, PromptTemplate

KEY = "sk-very-secret-0123456789"
TEXTS = ["a file opens", "adds one number", "the file closes", "the sum of two numbers"]
LABELS = ["files", "numbers", "files", "numbers"]
SLOTS = {"ask": ["Topic?", "Which topic: files or numbers?", "Say the topic."], "end": ["", "."]}
PRICES = {"tiny": (2.0, 10.0)}
GOOD = {"ask": SLOTS["ask"][1], "end": ""}
POOR = {"ask": SLOTS["ask"][0], "end": ""}


def topics(body):
    """Right when the question names the topics, and always for what closes."""
    text = body["messages"][-1]["content"]
    right, knows = "files" if "file " in text else "numbers", "Which" in text or "closes" in text
    return 200, completion(right if knows else "no idea", prompt_tokens=len(text) // 4)


def apis():
    """A fixture that makes a `ChatAPI` of the fixture `server`, as often as it is called."""

    @pytest.fixture(name="chat")
    def made_apis(server, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        made = []

        def make(**options):
            template = options.pop("template", PromptTemplate("{ask} {text}{end}", slots=SLOTS))
            options = {"prices": PRICES, **options}
            arguments = (options.pop("url", server.url), options.pop("model", "tiny"), template)
            made.append(ChatAPI(*arguments, TEXTS, LABELS, **options))
            return made[-1]

        yield make
        for api in made:
            api.close()

    return made_apis


def ledger_matches(api, server):
    spent = api.ledger.spent
    assert (spent.calls, spent.prompt_tokens, spent.completion_tokens) == (
        server.answers,
        server.prompt_tokens,
        server.completion_tokens,
    )
