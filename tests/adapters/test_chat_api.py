"""ChatAPI: faults and retries, money, secrets, parsing, and tuning against a real server."""

import email.utils
import logging
import pickle
import socket
import time

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
from chat_servers import completion

import zo_bilevel as zb
from zo_bilevel.adapters import ChatAPI, PromptTemplate
from zo_bilevel.adapters.http.retry_after import retry_after
from zo_bilevel.adapters.prompts import chat_client
from zo_bilevel.adapters.prompts.answer_parsing import match_label, row_of_class, row_of_logprobs
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger, CostLimitError
from zo_bilevel.adapters.prompts.saved_prompt import load_prompt, save_prompt
from zo_bilevel.solve.dispatch.base import Solve, takes_seed
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.errors import (
    InputError,
    MissingPackageError,
    SolveError,
    SolveTimeoutError,
    StopRunError,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*answers name no class:UserWarning")
KEY = "sk-very-secret-0123456789"
TEXTS = ["a file opens", "adds one number", "the file closes", "the sum of two numbers"]
LABELS = ["files", "numbers", "files", "numbers"]
SLOTS = {"ask": ["Topic?", "Which topic: files or numbers?", "Say the topic."], "end": ["", "."]}
PRICES = {"tiny": (2.0, 10.0)}


def topics(body):
    """Right when the question names the topics, and always for what closes."""
    text = body["messages"][-1]["content"]
    right, knows = "files" if "file " in text else "numbers", "Which" in text or "closes" in text
    return 200, completion(right if knows else "no idea", prompt_tokens=len(text) // 4)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(chat_client, "FIRST_WAIT_S", 0.01)
    server = chat_servers.start(topics)
    yield server
    chat_servers.stop(server)


@pytest.fixture
def chat(server):
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


GOOD = {"ask": SLOTS["ask"][1], "end": ""}
POOR = {"ask": SLOTS["ask"][0], "end": ""}


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


def ledger_matches(api, server):
    spent = api.ledger.spent
    assert (spent.calls, spent.prompt_tokens, spent.completion_tokens) == (
        server.answers,
        server.prompt_tokens,
        server.completion_tokens,
    )


FAULTS = ["status:429,0", "status:500", "cut-before", "malformed-before", "empty", "status:503"]


def test_the_ledger_equals_the_servers_count_under_retries(server, chat):
    expected = chat()(GOOD).theta
    server.answers = server.prompt_tokens = server.completion_tokens = 0
    api = chat(max_concurrent=2)
    server.plan = list(FAULTS)
    answer = api(GOOD)
    np.testing.assert_array_equal(answer.theta, expected)
    ledger_matches(api, server)
    assert api.ledger.spent.calls == 5  # one of them had a usage but no choices
    assert api.ledger.spent.retries == len(FAULTS)
    metered = api.ledger.cost_of(server.prompt_tokens, server.completion_tokens)
    lost = 2 * api.ledger.most(server.seen[0][1])
    assert api.ledger.spent.lost == 2  # a cut connection and half an answer may be on the bill
    assert answer.cost == pytest.approx(api.ledger.spent.cost)
    assert metered < answer.cost
    assert answer.cost <= metered + 2 * lost


def test_lost_answers_are_booked_at_the_most_they_can_cost(server, chat):
    server.plan = ["cut-after", "unmetered"]
    api = chat(max_concurrent=1)
    cost = api(GOOD).cost
    billed = api.ledger.cost_of(server.prompt_tokens, server.completion_tokens)
    assert server.answers == 5
    assert (api.ledger.spent.lost, api.ledger.spent.unmetered) == (1, 1)
    assert cost >= billed


@pytest.mark.parametrize(
    ("fault", "message", "lost"),
    [
        ("status:429", "answered with status 429", 0),
        ("status:500", "answered with status 500", 0),
        ("cut-before", "broke the connection", 1),
        ("malformed-before", "gave no JSON", 1),
        ("empty", "gave an answer without choices", 0),
        ("slow:0.6", "no answer within timeout_s=0.3|still answering", 1),
    ],
)
def test_each_fault_is_a_failed_solve_by_name_with_its_cost(server, chat, fault, message, lost):
    api = chat(retries=1, timeout_s=0.3, max_concurrent=1)
    server.plan = ["ok", fault, fault]
    kind = SolveTimeoutError if fault.startswith("slow") else SolveError
    with pytest.raises(kind, match=message) as caught:
        api(GOOD)
    assert caught.value.cost == pytest.approx(api.ledger.spent.cost)
    assert caught.value.cost > 0
    assert api.ledger.spent.lost == 2 * lost
    assert KEY not in str(caught.value)
    outcome = Solve(chat(retries=0, timeout_s=0.3))(Job(0, GOOD, 0))
    assert outcome.status == "ok"


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


def test_max_cost_is_never_exceeded(server, chat):
    one = chat()(GOOD).cost
    for limit in (0.3 * one, 15.0 * one):
        for plan in ([], ["cut-after", "status:500", "unmetered"] * 3):
            api = chat(max_cost=limit, temperature=1.0, retries=2, max_tokens=1)
            server.plan = list(plan)
            server.prompt_tokens = server.completion_tokens = 0
            outcomes = [Solve(api)(Job(k, GOOD, k)) for k in range(25)]
            billed = api.ledger.cost_of(server.prompt_tokens, server.completion_tokens)
            assert billed <= api.ledger.spent.cost * (1 + 1e-12) <= limit
            assert sum(o.cost for o in outcomes) == pytest.approx(api.ledger.spent.cost)
            assert outcomes[-1].status == "stopped"
            assert "might be exceeded" in outcomes[-1].error
    ledger = ChatLedger("tiny", PRICES, 1, 1e-9)
    with pytest.raises(CostLimitError, match="max_cost=1e-09 might be exceeded"):
        ledger.reserve({"messages": [{"content": "a"}]})


def test_max_cost_holds_across_copies_and_restarts(server, chat, tmp_path):
    one = chat()(GOOD).cost
    api = chat(max_cost=7 * one, temperature=1.0, max_tokens=1)
    copies = [pickle.loads(pickle.dumps(api)) for _ in range(3)]
    server.prompt_tokens = server.completion_tokens = 0
    ended = [Solve(copy)(Job(k, GOOD, k)).status for k in range(4) for copy in copies]
    assert ended.count("ok") >= 3
    assert ended[-3:] == ["stopped"] * 3
    assert api.ledger.cost_of(server.prompt_tokens, server.completion_tokens) <= 7 * one
    for copy in copies:
        copy.close()
    server.prompt_tokens = server.completion_tokens = 0
    store, limit = tmp_path / "runs.sqlite", 7 * one
    for cap in (limit, limit, 100 * limit):
        again = chat(max_cost=cap, temperature=1.0, max_tokens=1)
        result = zb.minimize(again.problem(), zb.RandomSearch(), max_solves=20, store=store)
        billed = again.ledger.cost_of(server.prompt_tokens, server.completion_tokens)
        assert billed <= cap
        assert ("max_cost" in result.stop_reason) == (cap == limit)
        assert not result.failures
    assert result.solves == 20


def test_max_cost_counts_every_answer_and_token_that_the_settings_allow(server, chat):
    def wordy(body):
        return 200, completion("files", completion_tokens=8 * 64)

    server.model = wordy
    api = chat(max_cost=0.02, max_tokens=64, extra={"n": 8}, temperature=1.0)
    assert [Solve(api)(Job(k, GOOD, k)).status for k in range(3)][-1] == "stopped"
    assert server.answers > 1
    assert api.ledger.cost_of(server.prompt_tokens, server.completion_tokens) <= 0.02
    with pytest.raises(InputError, match="max_cost needs max_tokens"):
        chat(max_cost=1.0, max_tokens=None)


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


def answer_with(message, finish="stop", **more):
    choice = {"message": message, "finish_reason": finish, **more}
    return lambda body: (200, {**completion(""), "choices": [choice]})


@pytest.mark.parametrize(
    ("message", "finish", "counted"),
    [
        ({"content": None}, "stop", "no_content"),
        ({"content": None, "tool_calls": [{}]}, "tool_calls", "tool_calls"),
        ({"content": None, "refusal": "no"}, "stop", "refused"),
        ({"content": "<think>files or"}, "length", "cut_short"),
        ({"content": ""}, "content_filter", "filtered"),
        ({"content": ""}, "SAFETY", "filtered"),
        ({"content": None, "function_call": {"name": "f"}}, "function_call", "tool_calls"),
    ],
)
def test_answers_without_text_fail_the_solve_under_their_own_name(
    server, chat, message, finish, counted
):
    server.model = answer_with(message, finish)
    api = chat()
    with pytest.raises(SolveError, match=rf"4 of 4 answers name no class \({counted}: 4\)"):
        api(GOOD)
    assert getattr(api.ledger.spent, counted) == 4


def test_answers_in_parts_and_after_reasoning_are_read(server, chat):
    server.model = answer_with({"content": [{"type": "text", "text": "files"}]})
    assert chat()(GOOD).theta.argmax(axis=1).tolist() == [0] * 4
    server.model = answer_with({"content": {"text": "files"}})
    assert chat()(GOOD).theta.argmax(axis=1).tolist() == [0] * 4
    server.model = answer_with({"content": "<think>numbers?</think>\nfiles"})
    assert chat()(GOOD).theta.argmax(axis=1).tolist() == [0] * 4
    first = {"token": "\n", "logprob": -0.001, "top_logprobs": [{"token": "num", "logprob": -9}]}
    second = {"token": "files", "logprob": -0.1}
    server.model = answer_with({"content": "\nfiles"}, logprobs={"content": [first, second]})
    row = chat(logprobs=True)(GOOD).theta[0]
    assert row[0] == pytest.approx(-0.1, abs=1e-5)


def test_one_refused_example_costs_that_example(server, chat):
    def model(body):
        if "adds" in body["messages"][-1]["content"]:
            return 400, {"error": {"message": "filtered", "code": "content_filter"}}
        return topics(body)

    server.model = model
    api = chat()
    with pytest.warns(UserWarning, match=r"1 of 4 answers name no class \(filtered: 1\)"):
        assert api(GOOD).theta.argmax(axis=1).tolist() == [0, 2, 0, 1]
    assert api.ledger.spent.filtered == 1
    strange = {"error": {"message": "something about this text"}}
    server.model = lambda body: (400, strange) if "adds" in str(body) else topics(body)
    api = chat(max_concurrent=1)
    with pytest.warns(UserWarning, match=r"1 of 4 answers name no class \(refused: 1\)"):
        assert api(GOOD).theta.argmax(axis=1).tolist() == [0, 2, 0, 1]
    server.model = lambda body: (400, strange)
    with pytest.raises(SolveError, match=r"something about this text.*leaves a setting out"):
        chat()(GOOD)


def test_any_setting_can_be_left_out(server, chat):
    chat(temperature=None, max_tokens=None)(GOOD)
    assert set(server.seen[0][1]) == {"model", "messages"}


def test_the_loop_stops_before_its_own_max_cost(server, chat):
    api = chat(temperature=1.0)
    one = chat()(POOR).cost
    result = zb.minimize(api.problem(), max_cost=10 * one, max_solves=20, seed=0)
    assert result.cost == pytest.approx(api.ledger.spent.cost)
    assert result.cost <= 10 * one
    assert "cost" in result.stop_reason or "converged" in result.stop_reason


def test_known_answers_cost_nothing_and_what_names_no_class_is_counted(server, chat):
    api = chat()
    with pytest.warns(UserWarning, match="3 of 4 answers name no class.*such as 'no idea'"):
        assert api(POOR).theta.argmax(axis=1).tolist() == [2, 2, 0, 2]
    assert api.ledger.spent.unparsable == 3
    before = len(server.seen)
    assert api(POOR).cost == 0.0
    assert (len(server.seen), api.ledger.spent.cached) == (before, 4)
    assert api.ledger.spent.unparsable == 3
    warm = chat(temperature=1.0)
    warm(POOR)
    warm(POOR)
    assert warm.ledger.spent.cached == 0
    assert api.predict(POOR, ["a file "]) == [None]
    assert api.predict(GOOD, ["a file opens"]) == ["files"]
    server.model = lambda body: (200, completion("Blue."))
    with pytest.raises(SolveError, match="4 of 4 answers name no class") as error:
        chat()(POOR)
    assert error.value.cost > 0.0


def test_a_parser_of_the_users_own(server, chat):
    server.model = lambda body: (200, completion("verdict=2"))
    api = chat(parser=lambda answer: {"verdict=2": "numbers"}.get(answer))
    assert api(GOOD).theta.argmax(axis=1).tolist() == [1, 1, 1, 1]
    assert chat().name != api.name
    wrong = chat(parser=lambda answer: "digits")
    outcome = Solve(wrong)(Job(0, GOOD, 0))
    assert "parser must return one of ['files', 'numbers'] or None, got 'digits'" in outcome.error
    assert outcome.cost == pytest.approx(wrong.ledger.spent.cost)
    assert outcome.cost > 0


def test_labels_are_matched_and_never_guessed():
    classes = ["files", "numbers", "big numbers"]
    assert match_label(' "Files." ', classes) == 0
    assert match_label("It is about numbers, I think", classes) == 1
    assert match_label("big numbers!", classes) == 2
    assert match_label("These are BIG  numbers", classes) == 2
    for answer in ("", "profiles", "files or numbers", "neither"):
        assert match_label(answer, classes) is None
    assert row_of_class(None, 3).argmax() == 3
    for found in (None, 0, 2):
        assert np.exp(row_of_class(found, 3)).sum() == pytest.approx(1.0)


def test_logprobs_are_used_when_they_come(server, chat):
    def model(body):
        assert body["logprobs"] is True
        tokens = {"fi": np.log(0.6), " num": np.log(0.3), "x": np.log(0.1)}
        return 200, completion("numbers", logprobs=tokens)

    server.model = model
    row = np.exp(chat(logprobs=True)(GOOD).theta[0])
    np.testing.assert_allclose(row, [0.6, 0.3, 0.1], atol=1e-6)
    shared = row_of_logprobs([{"token": "n", "logprob": 0.0}], ["number", "name"])
    assert shared is None
    server.model = topics  # a server that does not give them: the text is matched
    assert chat(logprobs=True)(GOOD).theta.argmax(axis=1).tolist() == [0, 1, 0, 1]


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


# ---- a real server ----------------------------------------------------------------------------


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
