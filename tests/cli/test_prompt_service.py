"""`zo-bilevel prompt FILE.toml`: the starter against a real server, seeds, saving, bad settings."""

import json
import subprocess
import sys
import warnings

import pytest
from click.testing import CliRunner

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
import chat_starter
from chat_servers import completion
from chat_starter import years

from zo_bilevel.adapters.prompts.saved_prompt import load_prompt
from zo_bilevel.cli.init import starter_text
from zo_bilevel.cli.main import main, plain_warnings

server = chat_servers.serving(years)
command = chat_starter.commands()


def test_the_starter_finds_saves_and_goes_on_without_paying_twice(server, command, tmp_path):
    first = command("--seeds", "2", "--store", "runs.sqlite", "--save", "found")
    assert first.exit_code == 0, first.output
    assert "Write only the year." in first.output
    assert "Medians of 2 seeds" in first.output
    said = " ".join(first.output.split())
    assert "each of 2 seeds, a search within 200 answers, and 16 answers to held-out" in said
    starts = ("no prompt", "hand-written", "hand-written with form", "found")
    for start, score in zip(starts, ("0.000", "0.000", "0.000", "1.000"), strict=True):
        lines = [line for line in first.output.splitlines() if line.startswith(f"{start}  ")]
        assert lines, first.output
        assert all(line.removeprefix(start).split()[0] == score for line in lines)
        assert all(line.endswith(" 0.00") for line in lines)
    assert max(map(len, first.output.splitlines())) <= 100
    saved = load_prompt(tmp_path / "found")
    assert saved.messages("In 1848 it had 12 rooms.")[-1]["content"] == "In 1848 it had 12 rooms."
    page = (tmp_path / "found" / "prompt.md").read_text()
    assert "| gain over hand written | 1.000 (-0.155 to 1.000" in page  # of 4 examples
    sent = json.loads((tmp_path / "found" / "messages.json").read_text())
    assert sent[0] == {"role": "system", "content": "Write only the year."}
    assert sent[-1] == {"role": "user", "content": "{text}"}
    listed = CliRunner().invoke(main, ["runs", "runs.sqlite"])
    assert listed.exit_code == 0, listed.output
    assert "runs.sqlite holds no runs" in listed.output
    assert f"{len(server.seen)} answers" in " ".join(listed.output.split())
    newest = CliRunner().invoke(main, ["show", "runs.sqlite", "--answers", "2"])
    assert f"2 of {len(server.seen)} answers kept in runs.sqlite.bill" in newest.output
    assert "show needs RUN" in CliRunner().invoke(main, ["show", "runs.sqlite"]).output
    address = ["show", "postgresql://me:hidden@host/runs", "--answers", "2"]
    refused = CliRunner().invoke(main, address).output
    assert "store must be a file" in refused
    assert "hidden" not in refused
    (tmp_path / "link").symlink_to("runs.sqlite")
    linked = CliRunner().invoke(main, ["show", "link", "--answers", "2"])
    assert f"2 of {len(server.seen)} answers" in linked.output
    asked = len(server.seen)
    again = command("--seeds", "2", "--store", "runs.sqlite", "--json")
    assert len(server.seen) == asked
    facts = json.loads(again.stdout)
    assert facts["rows"][0]["gains"]["found"]["mean"] == 1.0
    assert facts["spent"]["model"]["cost"] == 0.0


def test_baselines_a_judge_and_folds_come_from_the_same_file(server, command):
    def both(body):
        text = body["messages"][-1]["content"]
        if "<answer>" not in text:
            return years(body)
        answer, right = (text.split(f"<{tag}>\n")[1][:5].strip() for tag in ("answer", "right"))
        return 200, completion("10" if answer == right else "3/10", prompt_tokens=7)

    server.model = both
    text = starter_text("prompt-api").replace("http://127.0.0.1:8000/v1", server.url)
    text = text.replace('metric = "exact"', 'metric = "judge"').partition("[proposer]")[0]
    text = text.replace("validation = 0.4", "folds = 2").replace("num_shown = 2", "num_shown = 0")
    judge = f'[judge]\ncriteria = "Be strict."\n[judge.model]\nurl = "{server.url}"\n'
    judge += 'name = "judge"\nkey_variable = ""\nprice = [1.0, 2.0]\nmax_cost = 0.01\n'
    words = ("--methods", "random,optuna:TPE,cma", "--json")
    answer = command(*words, text=text + judge)
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    scores = {name: score["value"] for name, score in facts["rows"][0]["scores"].items()}
    names = ["no prompt", "hand-written", "hand-written with form", "random", "optuna:TPE", "cma"]
    assert list(scores) == [*names, "found"]
    assert scores["no prompt"] == scores["hand-written"] == pytest.approx(0.3)
    assert scores["found"] == scores["random"] == 1.0
    assert facts["rows"][0]["found"]["score"] == 1.0
    assert len(facts["rows"][0]["found"]["gains"]) == 8
    assert facts["spent"]["judge"]["calls"] > 0
    assert 0.0 < facts["spent"]["judge"]["cost"] < 0.01
    stopped = command("--json", text=text + judge.replace("0.01", "0.0005"))
    assert stopped.exit_code != 0
    assert "max_cost=0.0005 might be exceeded" in " ".join(stopped.output.split())


def test_a_text_that_appears_twice_is_never_tuned_on_and_held_out(server, command):
    text = starter_text("prompt-api").replace("http://127.0.0.1:8000/v1", server.url)
    rows = text[text.index("data = [") + 8 : text.index("\n]\nmetric")]
    text = text.replace(rows, rows + rows).partition("[proposer]")[0]
    text = text.replace('"1848"],', '"1849"],', 1)
    words = "12 of 24 rows repeat .* left out; 1 text has more than one right answer: "
    with pytest.warns(UserWarning, match=words):
        answer = command("--json", text=text)
    assert answer.exit_code == 0, answer.output
    asked = [body["messages"][-1]["content"] for _, body, _ in server.seen]
    assert len(set(asked)) == 12
    assert len(set(asked[-12:])) == 4  # four prompts on what is held out


def test_examples_stand_where_the_message_has_them(server, command):
    text = starter_text("prompt-api").replace("http://127.0.0.1:8000/v1", server.url)
    text = text.replace('user = "{text}"', 'user = "{examples} {text}"').partition("[proposer]")[0]
    answer = command("--json", text=text)
    assert answer.exit_code == 0, answer.output
    assert all(len(body["messages"]) <= 2 for _, body, _ in server.seen)
    assert any("Label: " in body["messages"][-1]["content"] for _, body, _ in server.seen)


@pytest.mark.parametrize(
    ("option", "value", "place"),
    [("--shots", "3", "its tables"), ("--prompt", "x", "[slots]"), ("--word", "a=b", "[template]")],
)
def test_options_of_soft_prompts_are_not_silently_ignored(server, command, option, value, place):
    answer = command(option, value)
    assert answer.exit_code == 2
    said = " ".join(answer.output.replace("│", "").split())
    assert f"{option} is for soft prompts: a .toml file has {place}" in said
    assert not server.seen


def test_warnings_are_one_line_without_code():
    before = warnings.formatwarning
    with plain_warnings():
        line = warnings.formatwarning(UserWarning("3 rows"), UserWarning, "file.py", 3, "code")
    assert line == "Warning: 3 rows\n"
    assert warnings.formatwarning is before


def test_two_searches_on_one_store_are_not_begun(server, command, tmp_path):
    code = (
        "import sys; from zo_bilevel.adapters.prompts.bill import alone_at\n"
        "with alone_at('runs.sqlite', 1): print('in', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, **pipes) as other:
        assert other.stdout.readline() == b"in\n"
        answer = command("--store", "runs.sqlite")
        other.communicate()
    assert answer.exit_code == 2
    assert "another search is at work with runs.sqlite" in answer.output
    assert not server.seen


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_answers = 200", "", "a search needs max_cost or max_answers: set one in a.toml, or"),
        ("examples = 8", "examples = -1", "a.toml: examples must be >= 1, got -1"),
        (
            'key_variable = ""',
            'key_variable = "NONE_X"',
            'key_variable = "" for a server that needs',
        ),
        (
            '"Write only the year."]',
            '"Which year does the text name?"]',
            "year does the text name?' twice",
        ),
        ("max_answers = 200", "max_anwers = 200", "unknown setting 'max_anwers'"),
        ('metric = "exact"', 'metric = "exakt"', "unknown metric 'exakt'"),
        ('metric = "exact"', 'metric = "judge"', "the table [judge] need each other"),
        ("validation = 0.4", "validation = 0.01", "leaves 0 to judge on"),
        ("validation = 0.4", "folds = 1", "folds must be 0 or in 2..8"),
        ("examples = 8", 'examples = "8"', "examples must be a whole number, got '8'"),
        (
            '"Write only the year."]',
            '"Write only the year."]\nx = "one"',
            "must be a list of texts",
        ),
        ("price = [0.15, 0.60]", "price = 3", "price must be two numbers, read and written, got 3"),
        (
            'metric = "exact"',
            'metric = "number"\nlength_price = true',
            "must be a number, got True",
        ),
        ("examples = 8", "examples = 12", "leaves none to hold out"),
        ("[slots]", "[slot]", "unknown table 'slot'"),
        ('system = "{ask}"', 'system = "{aks}"', "unknown slot 'aks'"),
        ("max_tokens = 16", "max_tokenz = 16", "setting 'max_tokenz'; did you mean 'max_tokens'"),
        ("price = [0.15, 0.60]", "max_cost = 1.0", "max_cost needs prices"),
        ('name = "model-name"', 'name = ""', "[model] must have local, litellm, or url and name"),
        ('"1901"]', "1901]", r"row 0 is ['The mill"),
        ("max_tokens = 16", "max_tokens = ", "cannot read a.toml"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_asked(server, command, old, new, message):
    text = starter_text("prompt-api").replace("http://127.0.0.1:8000/v1", server.url)
    assert old in text
    answer = command(text=text.replace(old, new))
    assert answer.exit_code == 2, answer.output
    assert message in " ".join(answer.output.split())
    assert "Estimate" not in answer.output or "validation" in new or "folds" in new
    assert not server.seen


def test_folds_of_the_command_line_come_before_those_of_the_file(server, command):
    text = starter_text("prompt-api").replace("http://127.0.0.1:8000/v1", server.url)
    answer = command("--folds", "1", text=text.replace("validation = 0.4", "folds = 2"))
    assert answer.exit_code == 2, answer.output
    assert "folds must be 0 or in 2..8, the examples, got 1" in " ".join(answer.output.split())
    assert not server.seen


def test_the_share_of_answers_that_cannot_be_read_stands_beside_the_scores(server, command):
    def model(body):
        status, document = years(body)
        if body["messages"][0]["role"] == "user":  # no prompt
            document["choices"][0]["message"]["content"] = ""
        return status, document

    server.model = model
    text = starter_text("prompt-api").replace("http://127.0.0.1:8000/v1", server.url)
    with pytest.warns(UserWarning, match="have no text"):
        answer = command("--json", text=text.partition("[proposer]")[0])
    (row,) = json.loads(answer.stdout)["rows"]
    assert row["unread"]["no prompt"] == 1.0
    assert row["unread"]["hand-written"] == row["unread"]["found"] == 0.0
