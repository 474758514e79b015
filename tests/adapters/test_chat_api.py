"""ChatAPI: requests, retries, secrets, what it is known by, and tuning against a real server."""

import email.utils
import logging
import pickle
import socket
import time

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
from chat_topics import GOOD, KEY, LABELS, SLOTS, TEXTS, apis, ledger_matches, topics

import zo_bilevel as zb
from zo_bilevel.adapters import ChatAPI, PromptTemplate
from zo_bilevel.adapters.http.retry_after import retry_after
from zo_bilevel.adapters.prompts import chat_client
from zo_bilevel.adapters.prompts.saved_prompt import load_prompt, save_prompt
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import (
    InputError,
    MissingPackageError,
    SolveError,
    StopRunError,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*answers name no class:UserWarning")
server, chat = chat_servers.serving(topics), apis()


def test_every_example_is_asked_once_with_all_parameters(server, chat):
    api = chat(temperature=0.5, max_tokens=3, extra={"top_p": 0.9}, send_seed=True)
    answer = api(GOOD, seed=11)
    assert answer.theta.shape == (4, 3)
    assert answer.theta.argmax(axis=1).tolist() == [0, 1, 0, 1]
    bodies = sorted((body for _, body, _ in server.seen), key=str)
    assert len(bodies) == 4
    for body in bodies:
        assert {k: v for k, v in body.items() if k != "messages"} == {
            "model": "tiny",
            "temperature": 0.5,
            "max_tokens": 3,
            "top_p": 0.9,
            "seed": 11,
        }
    contents = {body["messages"][0]["content"] for body in bodies}
    assert contents == {f"{GOOD['ask']} {text}" for text in TEXTS}
    assert {headers["Authorization"] for _, _, headers in server.seen} == {f"Bearer {KEY}"}
    assert takes_seed(api)
    assert not takes_seed(chat())


def test_refusals_that_cannot_change_are_not_repeated(server, chat):
    server.plan = ["status:401"] * 4
    with pytest.raises(SolveError, match="status 401") as caught:
        chat(max_concurrent=1)(GOOD)
    assert len(server.seen) == 1
    assert KEY not in str(caught.value)
    assert "***" in str(caught.value)
    assert caught.value.cost == 0.0


def test_an_endpoint_that_is_not_there_costs_nothing(chat):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(SolveError, match=r"cannot be reached.*2 attempts") as caught:
        chat(url=url, retries=1, max_concurrent=1)(GOOD)
    assert caught.value.cost == 0.0


def test_retry_after_is_honoured_by_every_request(server, chat):
    server.plan = ["status:429,1"]
    chat(max_concurrent=1)(GOOD)
    times = [moment for moment, _, _ in server.seen]
    assert times[1] - times[0] >= 0.99
    soon = email.utils.formatdate(time.time() + 50.0, usegmt=True)
    assert 45.0 < retry_after(soon) <= 50.0
    server.plan = ["status:429,3600"]
    with pytest.raises(StopRunError, match="asks to wait 3600 s"):
        chat(max_concurrent=1)(GOOD)


def test_limits_on_concurrency_and_rate(server, chat):
    def slowly(body):
        time.sleep(0.05)
        return topics(body)

    server.model = slowly
    chat(max_concurrent=2)(GOOD)
    assert server.most == 2
    server.seen.clear()
    chat(requests_per_minute=600.0)(GOOD)
    times = [moment for moment, _, _ in server.seen]
    assert times[-1] - times[0] >= 0.2


def test_a_refused_key_ends_the_run_and_is_not_stored(server, chat, tmp_path):
    server.plan = ["ok"] * 4 + ["status:401"] * 4
    store = tmp_path / "runs.sqlite"
    first = zb.minimize(chat().problem(), max_solves=6, seed=0, store=store)
    assert (first.solves, first.failures) == (1, {})
    assert "answered with status 401" in first.stop_reason
    server.plan = []
    again = zb.minimize(chat().problem(), max_solves=6, seed=0, store=store)
    assert (again.solves, again.failures) == (6, {})
    server.model = lambda body: (200, {"error": {"message": "your quota is used up"}})
    with pytest.raises(zb.InnerSolverError, match="your quota is used up"):
        zb.minimize(chat().problem(), max_solves=6, seed=1)


def test_any_setting_can_be_left_out(server, chat):
    chat(temperature=None, max_tokens=None)(GOOD)
    assert set(server.seen[0][1]) == {"model", "messages"}


def test_mini_batches_are_drawn_by_the_seed(server, chat):
    api = chat(examples_per_class=1)
    assert api.labels == [0, 1]
    assert api(GOOD, seed=3).theta.argmax(axis=1).tolist() == [0, 1]
    sent = {body["messages"][0]["content"] for _, body, _ in server.seen}
    assert len(sent) == 2
    again = chat(examples_per_class=1)
    again(GOOD, seed=3)
    assert {body["messages"][0]["content"] for _, body, _ in server.seen[2:]} == sent


def test_no_key_anywhere(server, chat, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.plan = ["status:500", "cut-before"]
    api = chat(max_concurrent=1, max_cost=1.0)
    store = tmp_path / "runs.sqlite"
    result = zb.minimize(api.problem(), max_solves=8, seed=0, store=store)
    folder = save_prompt(tmp_path / "saved", api, result, {"accuracy": 1.0})
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 3
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
    shown = [repr(api), str(api), api.name, repr(result), str(vars(api)), repr(folder)]
    for text in (*shown, caplog.text, str(vars(api.client)), str(api.ledger.facts())):
        assert KEY not in text
    assert KEY.encode() not in pickle.dumps(api)
    warnings = "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)
    assert TEXTS[0] not in warnings
    assert SLOTS["ask"][0] not in warnings


def test_the_store_is_keyed_by_everything_that_matters(server, chat, tmp_path):
    other = PromptTemplate("{ask} {text}{end}", slots={**SLOTS, "end": ["", "!"]})
    options = [
        {},
        {"url": "http://127.0.0.1:1/v1"},
        {"model": "large", "prices": None},
        {"temperature": 0.1},
        {"max_tokens": 2},
        {"max_tokens_field": "max_completion_tokens"},
        {"extra": {"top_p": 0.5}},
        {"send_seed": True},
        {"logprobs": True},
        {"classes": ["numbers", "files"]},
        {"examples_per_class": 1},
        {"template": other},
    ]
    names = [chat(**given).name for given in options]
    assert len(set(names)) == len(names)
    assert chat().name == names[0]
    assert server.url in names[0]
    assert "tiny" in names[0]
    store = tmp_path / "runs.sqlite"
    first = zb.minimize(chat().problem(), max_solves=6, seed=0, store=store)
    asked = len(server.seen)
    again = zb.minimize(chat().problem(), max_solves=6, seed=0, store=store)
    assert (again.loss, again.cost, len(server.seen)) == (first.loss, first.cost, asked)


def test_tuning_finds_the_wording_and_saves_it(server, chat, tmp_path):
    api = chat()
    result = zb.minimize(api.problem(), max_solves=12, seed=0, initial=api.template.start)
    assert result.phi["ask"] == GOOD["ask"]
    folder = save_prompt(tmp_path, api, result)
    loaded = load_prompt(folder)
    assert loaded.messages("T {x}") == api.template.messages(result.phi, "T {x}")
    assert loaded.card["spent"]["calls"] == api.ledger.spent.calls
    assert GOOD["ask"] in (folder / "prompt.txt").read_text()
    (folder / "prompt.json").write_text("{}")
    with pytest.raises(InputError, match="is no saved prompt"):
        load_prompt(folder)
    smoothed = zb.GradientMethod(zb.FG2UZO(4, directions="gaussian"), lr=0.3)
    found = zb.minimize(chat().problem(), smoothed, max_solves=30, seed=0)
    assert found.phi["ask"] == GOOD["ask"]


def test_bad_input_is_refused_by_name(server, chat, monkeypatch):
    with pytest.raises(InputError, match="prices: unknown model 'tiny'"):
        chat(prices={"small": (1.0, 1.0)})
    with pytest.raises(InputError, match="price of 'tiny' must be two numbers"):
        chat(prices={"tiny": 3.0})
    with pytest.raises(InputError, match="price of 'tiny' must be >= 0"):
        chat(prices={"tiny": (-1.0, 1.0)})
    with pytest.raises(InputError, match="max_cost needs prices"):
        chat(prices=None, max_cost=1.0)
    with pytest.raises(InputError, match="max_cost must be finite and > 0"):
        chat(max_cost=0)
    with pytest.raises(InputError, match="a key belongs in the environment") as caught:
        chat(url=f"http://user:{KEY}@127.0.0.1/v1")
    assert KEY not in str(caught.value)
    with pytest.raises(InputError, match="extra must not hold 'temperature'"):
        chat(extra={"temperature": 1})
    with pytest.raises(InputError, match="label 'files' is none of the classes"):
        chat(classes=["a", "b"])
    with pytest.raises(InputError, match="retries must be a whole number >= 0, got -1"):
        chat(retries=-1)
    with pytest.raises(InputError, match="timeout_s must be finite and > 0"):
        chat(timeout_s=0)
    with pytest.raises(InputError, match="requests_per_minute must be finite and > 0"):
        chat(requests_per_minute=0)
    with pytest.raises(InputError, match="class 'files' has 2 examples, examples_per_class is 3"):
        chat(examples_per_class=3)
    with pytest.raises(InputError, match="unknown slot 'asks'; did you mean 'ask'"):
        zb.Problem(zb.Space(asks=zb.Choice(["a", "b"])), chat())
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="set the environment variable OPENAI_API_KEY"):
        chat()
    chat(key_variable=None)(GOOD)
    assert "Authorization" not in server.seen[-1][2]
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(MissingPackageError, match=r"zo-bilevel\[prompts\]"):
        chat()


@pytest.fixture(scope="module")
def real_server(tmp_path_factory):
    """The `serve` command of transformers with a tiny random model, in this process."""
    for module in ("transformers", "fastapi", "uvicorn", "openai", "accelerate"):
        pytest.importorskip(module, reason=f"the server of transformers needs {module}")
    import httpx
    import tiny_models
    from transformers.cli.serve import Serve

    path = str(tiny_models.save("llama-causal", tmp_path_factory.mktemp("model")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = Serve(
        path, host="127.0.0.1", port=port, device="cpu", non_blocking=True, log_level="error"
    )
    try:
        for _ in range(300):
            try:
                url = f"http://127.0.0.1:{port}"
                if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield path, f"{url}/v1"
    finally:
        serve.kill_server()


def test_tuning_against_a_real_server_through_faults(real_server, monkeypatch):
    model, url = real_server
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(chat_client, "FIRST_WAIT_S", 0.01)
    proxy = chat_servers.start(chat_servers.forward_to(url))
    template = PromptTemplate(
        "{ask} {examples} {text} {end}",
        slots={"ask": ["what is the topic :", "Topic of text :"], "end": ["answer :", "it is"]},
        examples=list(zip(TEXTS, LABELS, strict=True)),
        num_shown=1,
        example="{text} {label}",
    )
    classes = {"of": "of", "word": "word"}  # a random model says words of its own
    try:
        api = ChatAPI(
            proxy.url,
            model,
            template,
            TEXTS,
            ["of", "word", "of", "word"],
            classes=list(classes),
            key_variable=None,
            prices={model: (1.0, 1.0)},
            max_tokens=3,
            max_concurrent=2,
        )
        proxy.plan = ["ok", "status:429,0", "status:500", "empty", "status:503", "slow:0.2"]
        result = zb.minimize(api.problem(), max_solves=5, seed=0, initial=template.start)
        assert result.solves == 5
        ledger_matches(api, proxy)
        assert api.ledger.spent.prompt_tokens > 0
        billed = api.ledger.cost_of(proxy.prompt_tokens, proxy.completion_tokens)
        assert result.cost == pytest.approx(billed)
        assert api.ledger.spent.lost == 0
        held_out = api.logits(result.phi, ["the file opens", "the sum of one number"])
        assert held_out.shape == (2, 3)
        api.close()
    finally:
        chat_servers.stop(proxy)
