"""LiteLLM: any provider, with the same books and the same refusals."""

import gc
import importlib.util

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
from chat_years import GOOD, SLOTS, TEXTS, YEARS, years

from zo_bilevel.adapters import (
    LiteLLM,
    PromptTask,
    PromptTemplate,
)
from zo_bilevel.adapters.prompts.metrics import (
    exact_match,
)
from zo_bilevel.support.errors import SolveError, StopRunError

server = chat_servers.serving(years)


@pytest.fixture
def litellm(server, monkeypatch):
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    monkeypatch.setenv("SOME_KEY", "sk-very-secret-0123456789")

    def make(**options):
        options = {"key_variable": "SOME_KEY", "url": server.url, "retries": 1, **options}
        return LiteLLM("openai/tiny", **options)

    yield make
    gc.collect()  # connections that it leaves open warn here, and not in another test


LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LEFT_OPEN
def test_litellm_asks_any_provider_with_the_same_books(server, litellm):
    chat = litellm(prices={"openai/tiny": (2.0, 10.0)}, max_cost=1.0)
    template = PromptTemplate("{ask} {text}", slots=SLOTS)
    task = PromptTask(chat, template, TEXTS, YEARS, exact_match)
    server.plan = ["status:500"]
    found = task(GOOD)
    assert found.theta.tolist() == [0.0] * 3
    assert (chat.ledger.spent.calls, chat.ledger.spent.retries) == (3, 1)
    assert chat.ledger.spent.prompt_tokens == server.prompt_tokens
    headers = {name.lower(): value for name, value in server.seen[0][2].items()}
    assert headers["authorization"] == "Bearer sk-very-secret-0123456789"
    assert chat.ledger.price == (2.0, 10.0)
    assert LiteLLM("gpt-4o-mini").ledger.price[0] > 0.0  # litellm's own table


@LEFT_OPEN
def test_litellms_refusals_mean_what_the_services_do(server, litellm):
    ask = [[{"role": "user", "content": "year 1900"}]]
    server.plan = ["status:401"]
    with pytest.raises(StopRunError, match="status 401") as caught:
        litellm().ask_all(ask)
    assert "sk-very-secret" not in str(caught.value)
    server.plan = ["status:429"] * 2
    with pytest.raises(SolveError, match=r"status 429.*2 attempts"):
        litellm().ask_all(ask)
    words = "filtered: the prompt triggers the content management policy"
    server.model = lambda body: (400, {"error": {"message": words, "code": "content_filter"}})
    assert litellm().ask_all(ask)[0].unread_as == "filtered"
