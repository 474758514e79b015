"""PromptSearch and Proposer on a scripted model: what is found and paid, going on, bad input."""

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_search
import chat_servers
from chat_search import MAGIC, PLAIN, ROWS, TEXTS, YEARS, scripted
from chat_servers import completion

from zo_bilevel.adapters import PromptSearch, PromptTask, PromptTemplate, Proposer
from zo_bilevel.adapters.prompts.bill import alone_at
from zo_bilevel.adapters.prompts.metrics import WholeSet, exact_match
from zo_bilevel.adapters.prompts.prompt_search import LOCK_PLACE
from zo_bilevel.support.errors import InputError, SolveError

server = chat_servers.serving(scripted)
make = chat_search.tasks()


def test_a_proposed_wording_is_raced_and_kept(server, make):
    task = make()
    result = PromptSearch(task, Proposer(task.chat)).run(max_answers=500, seed=1)
    assert result.phi == {"ask": MAGIC}
    assert result.score == 1.0
    assert result.start_score < 0.4
    assert np.mean(result.gains) == pytest.approx(result.score - result.start_score)
    assert len(result.gains) == 16
    assert result.answers <= 500
    assert result.cost == pytest.approx(task.chat.ledger.spent.cost)
    asked = [body["messages"][-1]["content"] for _, body, _ in server.seen]
    for words in ("to these mistakes", "from bad to good", "Somebody answers texts"):
        assert any(words in text for text in asked)


def test_examples_are_chosen_where_they_help_and_length_has_a_price(make):
    found = PromptSearch(make(num_shown=4)).run(max_answers=900, seed=0)
    shown = [k for name, k in found.phi.items() if name.startswith("shown") and k >= 0]
    assert sum(k >= 4 for k in shown) >= 3
    assert found.score > found.start_score + 0.2
    dear = PromptSearch(make(num_shown=4), length_price=1000.0).run(max_answers=900, seed=0)
    assert len(dear.text) < len(found.text)


def test_a_search_goes_on_from_its_store_without_asking_again(server, make, tmp_path):
    task = make(num_shown=2)
    whole = PromptSearch(task, Proposer(task.chat)).run(max_answers=400, seed=2)
    server.seen.clear()
    server.plan = ["ok"] * 150 + ["status:401"] * 10
    store = tmp_path / "runs.sqlite"
    stopped = make(num_shown=2)
    with pytest.raises(Exception, match="status 401"):
        PromptSearch(stopped, Proposer(stopped.chat)).run(max_answers=400, seed=2, store=store)
    server.seen.clear()
    server.plan = []
    again = make(num_shown=2)
    found = PromptSearch(again, Proposer(again.chat)).run(max_answers=400, seed=2, store=store)
    assert (found.phi, found.gains, found.cost) == (whole.phi, whole.gains, whole.cost)
    assert found.tried == whole.tried
    assert 0 < len(server.seen) <= task.chat.ledger.spent.calls - 145


@pytest.mark.filterwarnings("ignore:a prompt scores 0")
def test_a_prompt_without_answers_is_lost_and_a_service_without_any_ends_the_search(server, make):
    def flaky(body):
        if body["messages"][0]["content"] == "Hello.":
            return 500, {"error": "broken"}
        return scripted(body)

    server.model = flaky
    with pytest.warns(UserWarning, match="a prompt scores 0: .*answered with status 500"):
        found = PromptSearch(make(retries=0)).run(max_answers=200, seed=0)
    assert found.phi["ask"] == PLAIN
    server.model = lambda body: (500, {"error": "broken"})
    for budget in (60, 200):
        with pytest.raises(SolveError, match="answered with status 500"):
            PromptSearch(make(retries=0)).run(max_answers=budget, seed=0)
    server.model = lambda body: (200, completion("x"))
    server.plan = ["malformed-before"] * 50
    with pytest.raises(SolveError, match=r"not one of \d+ answers could be read: .*gave no JSON"):
        PromptSearch(make(retries=0)).run(max_cost=0.003, seed=0)
    server.plan = []
    server.model = lambda body: (200, completion(""))
    fault = pytest.raises(SolveError, match="not one of 8 answers could be read")
    with pytest.warns(UserWarning, match="4 of 4 answers have no text"), fault:
        PromptSearch(make()).run(max_answers=200, seed=0)


def test_answers_that_are_cut_are_counted_and_end_a_search_that_can_read_none(server, make):
    def cut(body):
        document = completion("The year in this text is")
        document["choices"][0]["finish_reason"] = "length"
        return 200, document

    server.model = cut
    task = make()
    words = r"cut at max_tokens \(cut_short: 4\).*raise max_tokens"
    fault = pytest.raises(SolveError, match=r"not one of 8 answers could be read: .*raise max_tok")
    with pytest.warns(UserWarning, match=words), fault:
        PromptSearch(task).run(max_answers=200, seed=0)
    assert task.chat.ledger.spent.cut_short == 8
    with pytest.warns(UserWarning, match="gives 0.5, not 1, to the right answer '1800'"):
        half = make(metric=lambda answer, right: 0.5)
    with pytest.warns(UserWarning, match="they count as they are scored"):
        assert PromptSearch(half).run(max_answers=100, seed=0).score == 0.5
    right = make(metric=lambda answer, right: 1.0)
    PromptSearch(right).run(max_answers=100, seed=0)
    assert right.chat.ledger.spent.cut_short == 0


def test_a_proposal_that_is_cut_is_no_wording(server, make):
    document = completion("Write only the")
    document["choices"][0]["finish_reason"] = "length"
    server.model = lambda body: (200, document)
    rng = np.random.default_rng(0)
    found, cost = Proposer(make().chat).propose([(PLAIN, 0.5)], ROWS[:4], [], 2, rng)
    assert found == []
    assert cost > 0.0


def test_one_wording_is_enough_with_a_proposer(make):
    task = make()
    template = PromptTemplate("{text}", "{ask}", slots={"ask": [PLAIN]})
    one = PromptTask(task.chat, template, TEXTS, YEARS, exact_match)
    assert PromptSearch(one, Proposer(task.chat)).run(max_answers=300, seed=0).phi == {"ask": MAGIC}
    with pytest.raises(InputError, match="nothing to search"):
        PromptSearch(one)
    with pytest.raises(InputError, match="at least 2 texts"):
        one.problem()
    free = make(prices=None)
    with pytest.raises(InputError, match="max_cost=1 needs prices of tiny"):
        PromptSearch(free).run(max_cost=1.0)


def test_the_form_of_the_right_answers_is_a_wording_of_the_first_race(server, make):
    server.model = lambda body: (
        200,
        completion(str(body["messages"][-1]["content"])[-4:] if "4 digits" in str(body) else "no"),
    )
    task = make()
    found = PromptSearch(task, Proposer(task.chat)).run(max_answers=200, seed=0)
    assert found.phi == {"ask": f"{PLAIN} Write only a number of 4 digits."}
    assert found.score == 1.0


def test_two_searches_on_one_store_are_not_begun(server, make, tmp_path):
    store = tmp_path / "runs.sqlite"
    with (
        alone_at(store, LOCK_PLACE),
        pytest.raises(InputError, match="another search is at work with"),
    ):
        PromptSearch(make()).run(max_answers=200, store=store)
    with pytest.raises(InputError, match="store must lie in a directory that exists, got"):
        PromptSearch(make()).run(max_answers=200, store=tmp_path / "none" / "runs.sqlite")
    assert not server.seen
    assert PromptSearch(make()).run(max_answers=100, store=store).answers <= 100


def test_folds_judge_each_search_on_what_it_did_not_see(make):
    task = make(rows=12)
    found = PromptSearch(task, Proposer(task.chat), folds=4).run(max_answers=400, seed=0)
    assert found.phi == {"ask": MAGIC}
    assert len(found.gains) == 12
    assert found.score == 1.0 > found.start_score
    assert found.answers <= 400
    plain = PromptSearch(make(rows=12), folds=3).run(max_answers=90, seed=0)
    assert plain.score >= plain.start_score
    with pytest.raises(InputError, match=r"folds must be 0 or in 2..12, the examples, got 13"):
        PromptSearch(make(rows=12), folds=13)


@pytest.mark.parametrize("folds", [0, 3])
def test_examples_with_the_same_text_are_on_the_same_side(make, folds):
    seen = []

    def noted(answer, right):
        seen.append((answer, right))
        return exact_match(answer, right)

    task = make(rows=20)
    rows = [k // 2 for k in range(40)]
    parts = [[values[k] for k in rows] for values in (TEXTS, YEARS)]
    twice = PromptTask(task.chat, task.template, *parts, noted)
    search, sides = PromptSearch(twice, folds=folds), []
    judged = search._judged

    def note(book):
        sides.append([{twice.texts[k] for k in side} for side in (book.training, book.validation)])
        return judged(book)

    search._judged = note
    search.run(max_answers=200)
    assert len(sides) == max(1, folds)
    for training, validation in sides:
        assert not training & validation
        assert len(training | validation) == 20
    same = PromptTask(task.chat, task.template, ["a"] * 40, ["1"] * 40, exact_match)
    with pytest.raises(InputError, match="of 1 different examples leaves 0 to judge on"):
        PromptSearch(same)
    words = "2 texts have more than one right answer: 'made in 1800' has '1800' and '1801'"
    with pytest.warns(UserWarning, match=words):
        PromptTask(task.chat, task.template, [*TEXTS[:4], *TEXTS[:2]], YEARS[:4] + YEARS[1:3])


def test_bad_settings_are_refused_before_anything_is_asked(server, make):
    task = make()
    for options, message in (
        ({"validation": 0.0}, r"validation must lie in \(0, 1\)"),
        ({"validation": 0.01}, "leaves 0 to judge on and 40 to race on"),
        ({"slot": "aks"}, r"slot must be one of \['ask'\], got 'aks'"),
        ({"population": 3}, "population must be"),
    ):
        with pytest.raises(InputError, match=message):
            PromptSearch(task, **options)
    with pytest.raises(InputError, match="needs max_cost or max_answers"):
        PromptSearch(task).run()
    for seed in (-1, 1.5, "a", None):
        with pytest.raises(InputError, match="seed must be a whole number"):
            PromptSearch(task).run(max_answers=100, seed=seed)
    with pytest.raises(InputError, match="give a metric of one answer"):
        PromptSearch(make(metric=WholeSet(lambda a, r: 1.0)))
    with pytest.raises(InputError, match="takes a PromptTask"):
        PromptSearch(task.problem())
    assert not server.seen
    too_small = (
        "the budget is too small: max_answers=10; nothing was asked. max_answers=40 would do"
    )
    with pytest.raises(InputError, match=too_small):
        PromptSearch(task).run(max_answers=10)
    with pytest.raises(InputError, match=r"max_cost=0\.0005; nothing was asked") as fault:
        PromptSearch(task).run(max_cost=0.0005)  # one answer may cost more, so none is asked
    assert not server.seen
    enough = float(str(fault.value).rpartition("max_cost=")[2].split()[0])
    assert len(PromptSearch(task).run(max_cost=enough).tried) >= 2
