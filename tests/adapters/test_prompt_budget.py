"""What a PromptSearch may spend: budgets, the same call again, limits of the model."""

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_search
import chat_servers
from chat_search import PLAIN, scripted
from chat_servers import completion

from zo_bilevel.adapters import PromptSearch, Proposer
from zo_bilevel.adapters.prompts.judge import Judge

server = chat_servers.serving(scripted)
make = chat_search.tasks()


def test_the_budget_holds_and_the_start_is_kept_where_nothing_is_better(server, make):
    task = make()
    result = PromptSearch(task).run(max_cost=0.03, seed=0)
    assert result.phi["ask"] in (PLAIN, "Hello.")
    assert result.score >= result.start_score
    assert result.cost <= 0.03
    dear = make(num_shown=4)
    one = PromptSearch(dear).run(max_cost=0.05, seed=0)
    assert dear.chat.ledger.spent.cost <= 0.05
    assert "is less than the next answers may cost" in one.stop_reason


@pytest.mark.parametrize("folds", [0, 4])
@pytest.mark.parametrize("budget", [{"max_cost": 0.1}, {"max_answers": 120}])
def test_the_same_call_again_with_the_same_model_asks_nothing(server, make, folds, budget):
    task = make(num_shown=2)
    search = PromptSearch(task, Proposer(task.chat), folds=folds)
    first = search.run(**budget, seed=0)
    asked, paid = len(server.seen), task.chat.ledger.spent.cost
    assert first.answers == asked
    assert first.cost == pytest.approx(paid)
    again = search.run(**budget, seed=0)
    assert len(server.seen) == asked
    assert task.chat.ledger.spent.cost == paid
    for one in (first, again):
        object.__setattr__(one, "seconds", 0.0)
    assert again == first
    unread = [task.chat.ledger.facts()[k] for k in ("unparsable", "cut_short", "no_content")]
    assert unread == [0, 0, 0]


def test_another_seed_costs_what_its_answers_cost_whoever_paid(make, tmp_path):
    task = make(num_shown=2)
    PromptSearch(task).run(max_answers=120, seed=0)
    after = PromptSearch(task).run(max_answers=120, seed=1)
    alone = PromptSearch(make(num_shown=2)).run(max_answers=120, seed=1)
    assert (after.cost, after.answers, after.tried) == (alone.cost, alone.answers, alone.tried)
    assert task.chat.ledger.spent.cost < 2 * after.cost


def test_what_a_fold_leaves_is_for_the_next(server, make):
    found = PromptSearch(make(num_shown=2), folds=4).run(max_answers=150, seed=0)
    assert 120 < found.answers <= 150
    assert found.answers == len(server.seen)


@pytest.mark.parametrize(("budget", "raced"), [(60, 4), (40, 2), (39, 0), (20, 0)])
def test_small_budgets_race_fewer_prompts_or_say_what_would_do(server, make, budget, raced):
    search = PromptSearch(make(num_shown=2))
    if raced:
        found = search.run(max_answers=budget)
        assert len(found.tried) == raced
    else:
        words = (
            f"no prompt was raced .* max_answers={budget}; .* max_answers=40 would do to race two"
        )
        with pytest.warns(UserWarning, match=words):
            found = search.run(max_answers=budget)
    assert found.is_judged
    assert len(server.seen) <= budget


@pytest.mark.parametrize("folds", [0, 2])
def test_a_limit_of_the_model_that_is_reached_unforeseen_keeps_the_best_raced(server, make, folds):
    def model(body):
        is_judge = "<answer>" in body["messages"][-1]["content"]
        return (200, completion("7", prompt_tokens=300)) if is_judge else scripted(body)

    server.model = model
    free, options = Judge(make().chat), {"num_shown": folds, "rows": 12}
    PromptSearch(make(metric=free, **options), folds=folds).run(max_answers=200)
    cap = (
        0.95 if folds else 0.7
    ) * free.chat.ledger.spent.cost  # what a judge costs is not foreseen
    judge = Judge(make(max_cost=cap).chat)
    found = PromptSearch(make(metric=judge, **options), folds=folds).run(max_answers=200)
    assert "might be exceeded" in found.stop_reason
    assert found.is_judged == (folds > 0)
    assert len(found.tried) >= 2
    assert found.score >= found.start_score
