"""ChatAPI: how answers become classes, and what no class can be read from."""

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
from chat_servers import completion
from chat_topics import GOOD, POOR, apis, topics

from zo_bilevel.adapters.prompts.answer_parsing import match_label, row_of_class, row_of_logprobs
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Job
from zo_bilevel.support.errors import SolveError

pytestmark = pytest.mark.filterwarnings("ignore:.*answers name no class:UserWarning")
server, chat = chat_servers.serving(topics), apis()


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
