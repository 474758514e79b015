"""ChatAPI: what answers cost, lost ones included, and limits on it."""

import pickle

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
from chat_servers import completion
from chat_topics import GOOD, KEY, POOR, PRICES, apis, ledger_matches, topics

import zo_bilevel as zb
from zo_bilevel.adapters.prompts.chat_ledger import ChatLedger, CostLimitError
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.errors import InputError, SolveError, SolveTimeoutError

pytestmark = pytest.mark.filterwarnings("ignore:.*answers name no class:UserWarning")
server, chat = chat_servers.serving(topics), apis()


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


def test_a_count_of_no_tokens_is_no_count(server, chat):
    server.model = lambda body: (200, completion("files", prompt_tokens=0, completion_tokens=0))
    api = chat(max_concurrent=1, max_cost=1.0)
    cost = api(GOOD).cost
    assert api.ledger.spent.unmetered == 4
    assert cost == pytest.approx(sum(api.ledger.most(body) for _, body, _ in server.seen))


@pytest.mark.parametrize(
    ("fault", "message", "lost"),
    [
        ("status:429", "answered with status 429", 0),
        ("status:500", "answered with status 500", 0),
        ("cut-before", "broke the connection", 1),
        ("malformed-before", "gave no JSON", 1),
        ("page:200", "sent HTML, not JSON: 'Please sign in'", 1),
        ("page:502", "answered with status 502, sent HTML, not JSON: 'Please sign in'", 0),
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


def test_the_loop_stops_before_its_own_max_cost(server, chat):
    api = chat(temperature=1.0)
    one = chat()(POOR).cost
    result = zb.minimize(api.problem(), max_cost=10 * one, max_solves=20, seed=0)
    assert result.cost == pytest.approx(api.ledger.spent.cost)
    assert result.cost <= 10 * one
    assert "cost" in result.stop_reason or "converged" in result.stop_reason
