"""Pipelines of prompts: a Python function, and a real DSPy program read and written."""

import gc
import importlib.util
import json

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
from chat_servers import completion

import zo_bilevel as zb
from zo_bilevel.adapters import (
    ChatModel,
    DSPyProgram,
    PromptProgram,
    PromptSearch,
    PromptTemplate,
)
from zo_bilevel.adapters.prompts.metrics import exact_match
from zo_bilevel.support.errors import InnerSolverError, InputError, SolveError, StopRunError

TEXTS = [f"made in {year}" for year in range(1900, 1916)]
YEARS = [str(year) for year in range(1900, 1916)]
DRAFT, CHECK = ["Hello.", "Which year?"], ["Repeat it.", "Only digits!"]
GOOD = {"draft_ask": DRAFT[1], "check_ask": CHECK[1]}


def two_steps(body):
    text = body["messages"][-1]["content"]
    if "Hello" in text:
        return 200, completion("Hi")
    if "Which" in text:
        return 200, completion(f"The year is {text[-4:]}")
    return 200, completion(text[-4:] if "Only digits" in text else text.removeprefix("Repeat it. "))


server = chat_servers.serving(two_steps)


def pipeline(text, ask):
    return ask("check", ask("draft", text))


@pytest.fixture
def program(server):
    chat = ChatModel(server.url, "tiny", key_variable=None, prices={"tiny": (2.0, 10.0)})
    templates = {
        "draft": PromptTemplate("{ask} {text}", slots={"ask": DRAFT}),
        "check": PromptTemplate("{ask} {text}", slots={"ask": CHECK}),
    }
    yield PromptProgram(chat, pipeline, templates, TEXTS, YEARS, exact_match)
    chat.close()


def test_a_function_of_several_prompts_is_one_inner_solver(program):
    found = program(GOOD)
    assert found.theta.tolist() == [0.0] * 16
    assert found.cost == pytest.approx(program.chat.ledger.spent.cost)
    result = zb.minimize(program.problem(), max_solves=4, seed=0)
    assert (result.loss, result.phi) == (0.0, GOOD)
    assert "(check)\n[user]\nOnly digits! {text}" in program.template.text(GOOD)
    search = PromptSearch(program, slot="draft_ask").run(max_answers=200, seed=0)
    assert (search.phi, search.score) == (GOOD, 1.0)


def test_a_pipeline_counts_answers_that_were_cut_once(server, program):
    def cut(body):
        status, document = two_steps(body)
        if "Which" in body["messages"][-1]["content"]:
            document["choices"][0]["finish_reason"] = "length"
            document["choices"][0]["message"]["content"] = "The year is"
        return status, document

    server.model = cut
    fault = pytest.raises(SolveError, match="raise max_tokens")
    with pytest.warns(UserWarning, match=r"16 of 16 answers .* \(cut_short: 16\)"), fault:
        program(GOOD)
    with pytest.raises(SolveError, match="raise max_tokens"):
        program(GOOD)
    assert program.chat.ledger.spent.cut_short == 16


def test_a_pipeline_that_fails_for_one_text_tells_what_all_its_answers_cost(server, program):
    def gone(body):
        last = body["messages"][-1]["content"]
        return (404, {}) if last.startswith("Only digits") and "1903" in last else two_steps(body)

    server.model = gone
    with pytest.raises(SolveError, match="404") as fault:
        program(GOOD)
    assert fault.value.cost == pytest.approx(program.chat.ledger.spent.cost)
    assert fault.value.cost > 0.0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda text, ask: str(1 / 0), "ZeroDivisionError: division by zero"),
        (lambda text, ask: 1999, "a pipeline gives a text, got 1999"),
        (lambda text, ask: ask("draft", 5), "ask takes the name of a template and a text, got 5"),
    ],
)
@pytest.mark.filterwarnings("ignore:a prompt scores 0")
def test_a_pipeline_that_raises_fails_its_prompt_and_ends_a_search_by_name(program, fault, words):
    def sometimes(text, ask):  # where the wording is another one than the first
        draft = ask("draft", text)
        return ask("check", draft) if draft == "Hi" or text != TEXTS[3] else fault(text, ask)

    program.pipeline = sometimes
    with pytest.raises(SolveError, match=rf"{words}.* for example 3 .* under .*'Which year\?'"):
        program(GOOD)
    found = PromptSearch(program).run(max_answers=300, seed=0)
    assert found.score > found.start_score
    program.pipeline = fault
    with pytest.raises(SolveError, match=rf"{words}.* for example .*\('made in .* under"):
        PromptSearch(program).run(max_answers=300, seed=0)


def test_bad_programs_are_refused_by_name(program):
    chat, texts = program.chat, (TEXTS, YEARS, exact_match)
    shown = PromptTemplate("{examples} {text}", examples=["ab", "cd"], num_shown=1)
    for templates, message in (
        ({"a": shown}, "template 'a' of a program cannot show examples"),
        ({"a": PromptTemplate("{text}")}, "nothing to tune"),
    ):
        with pytest.raises(InputError, match=message):
            PromptProgram(chat, pipeline, templates, *texts)
    templates = {"a": PromptTemplate("{ask} {text}", slots={"ask": DRAFT})}
    with pytest.raises(InputError, match="asks for 'draft', templates are"):
        PromptProgram(chat, pipeline, templates, *texts)({"a_ask": DRAFT[0]})
    with pytest.raises(InputError, match="pipeline must be a function"):
        PromptProgram(chat, "draft", templates, *texts)


def with_fields(body):
    """Answers as DSPy asks to; right with the right words, or with a demonstration."""
    words = " ".join(str(m["content"]) for m in body["messages"])
    text = str(body["messages"][-1]["content"])
    year = text.partition("made in ")[2][:4]
    right = "Only the year" in words or "made in 1800" in words
    answer = year if right else f"It is {year}"
    return 200, completion(f"[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]")


@pytest.mark.filterwarnings("ignore")
def test_a_dspy_program_is_read_tuned_and_written(server, tmp_path):
    if importlib.util.find_spec("dspy") is None:
        pytest.skip("dspy is not installed")
    import dspy

    server.model = with_fields
    lm = dspy.LM("openai/tiny", api_base=server.url, api_key="none", cache=False, num_retries=0)
    rows = [("made in 1800", "1800"), *zip(TEXTS[:3], YEARS, strict=False)]
    examples = [dspy.Example(question=q, answer=a).with_inputs("question") for q, a in rows]

    def exact(example, prediction):
        return prediction.answer == example.answer

    original = dspy.Predict(dspy.Signature("question -> answer", "Find the year."))
    arguments = (original, {"self": ["Only the year, please."]}, examples, exact)
    task = DSPyProgram(*arguments, num_demos=1, lm=lm)
    assert task.start == {"self_instructions": "Find the year.", "self_demo_1": -1}
    assert task(task.start).theta.tolist()[1:] == [1.0] * 3
    assert (
        task({"self_instructions": "Find the year.", "self_demo_1": 0}).theta.tolist() == [0.0] * 4
    )
    result = zb.minimize(task.problem(), max_solves=10, initial=task.start, seed=0)
    assert result.loss == 0.0
    with pytest.warns(UserWarning, match="what openai/tiny costs is not known, and told as 0"):
        DSPyProgram(*arguments, num_demos=1, lm=lm)(task.start)

    class Twice(dspy.Module):  # in DSPy's own threads
        def __init__(self):
            self.ask = original

        def forward(self, question):
            asked = dspy.Example(question=question).with_inputs("question")
            return dspy.Parallel(num_threads=2)([(self.ask, asked)] * 2)[1]

    def failing(example, prediction):
        return exact(example, prediction) / (example is not examples[-1])

    def spent():
        return (2.0 * server.prompt_tokens + 10.0 * server.completion_tokens) / 1e6

    options = {"num_demos": 1, "lm": lm, "prices": {"openai/tiny": (2.0, 10.0)}}
    priced, before = DSPyProgram(*arguments, **options), spent()
    cost = zb.minimize(priced.problem(), max_solves=4, initial=task.start, seed=0).cost
    assert cost == pytest.approx(spent() - before)
    assert cost > 0.0
    twice = (Twice(), {"ask": arguments[1]["self"]}, examples)
    threaded, before = DSPyProgram(*twice, exact, **options), spent()
    assert threaded(threaded.start).cost == pytest.approx(spent() - before)
    before = spent()
    with pytest.raises(StopRunError, match="ZeroDivisionError") as fault:
        DSPyProgram(*twice, failing, **options)(threaded.start)
    assert fault.value.cost == pytest.approx(spent() - before)
    tuned = task.program(result.phi)
    tuned.save(str(tmp_path / "tuned.json"))
    again = dspy.Predict("question -> answer")
    again.load(str(tmp_path / "tuned.json"))
    assert task.choices(again) == result.phi
    assert task.choices(original) == task.start
    assert original.signature.instructions == "Find the year."
    state = json.loads((tmp_path / "tuned.json").read_text())
    assert state["signature"]["instructions"] == result.phi["self_instructions"]
    with pytest.raises(InputError, match="are none of its wordings"):
        task.choices(dspy.Predict(dspy.Signature("question -> answer", "Else.")))
    with pytest.raises(InputError, match="no predictor 'x'"):
        DSPyProgram(original, {"x": ["a"]}, examples, exact)
    with pytest.raises(InputError, match="other instructions or num_demos"):
        DSPyProgram(original, {}, examples, exact)
    with pytest.raises(Exception, match=r"the metric raised ZeroDivisionError.*example 0"):
        DSPyProgram(*arguments[:3], lambda e, p: 1 / 0, lm=lm)(task.start)
    server.model = lambda body: (401, {"error": {"message": "bad key"}})
    server.seen.clear()
    with pytest.raises(InnerSolverError, match="bad key"):  # the run ends
        zb.minimize(task.problem(), max_solves=4, initial=task.start, seed=0)
    assert len(server.seen) == 1
    gc.collect()
