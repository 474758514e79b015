"""`zo-bilevel prompt FILE.toml` that ends early: limits, Ctrl-C, examples without an answer."""

import json
import re
import signal
import threading

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import chat_servers
import chat_starter
from chat_starter import starter, years
from click.testing import CliRunner

from zo_bilevel.adapters.prompts.bill import Bill, bill_file
from zo_bilevel.adapters.prompts.saved_prompt import load_prompt
from zo_bilevel.cli.main import main

server = chat_servers.serving(years)
command = chat_starter.commands()


def test_a_limit_reached_at_the_end_keeps_what_was_found_and_the_bill_is_in_all(
    server, command, tmp_path
):
    def ends(body):  # after the search, held-out texts are asked without the system's message
        if body["messages"][0]["role"] == "user" and "instruction" not in str(body):
            return 402, {"error": {"message": "quota used up"}}
        return years(body)

    server.model = ends
    words = ("--store", "runs.sqlite", "--save", "found")
    first = command(*words)
    assert first.exit_code == 1, first.output
    assert "Not scored on held-out examples" in first.output
    assert "quota used up" in first.output
    scores = load_prompt(tmp_path / "found").card["scores"]
    assert scores["validation"] == scores["held_out_found"]["value"] == 1.0  # the first of all
    assert scores["gain_over_hand_written"]["mean"] == 1.0
    assert "held_out_no_prompt" not in scores
    server.model = years
    second = command(*words)
    assert second.exit_code == 0, second.output
    card = load_prompt(tmp_path / "found").card
    assert card["spent_with_earlier_runs"] > 3 * card["spent"]["cost"]
    written = [b for _, b, _ in server.seen if "Write only the instruction" in str(b)]
    assert {(b["max_tokens"], b["temperature"]) for b in written} == {(300, 0.7)}


def test_a_limit_reached_in_a_later_seed_keeps_the_seeds_before_it(server, command, tmp_path):
    text = starter(server)
    text = text.partition("[proposer]")[0].replace("max_answers = 200", "max_answers = 60")
    first = command("--json", text=text)
    cost = json.loads(first.stdout)["spent"]["model"]["cost"]
    capped = text.replace("max_tokens = 16", f"max_tokens = 16\nmax_cost = {1.5 * cost}")
    answer = command("--seeds", "3", "--save", "found", "--report", "page.html", text=capped)
    assert answer.exit_code == 1, answer.output
    said = " ".join(answer.output.split())
    assert "seed 0" in said
    assert "might be exceeded" in said
    assert "run the same command again" in said
    assert load_prompt(tmp_path / "found").card["scores"]["unreadable_found"] == 0.0
    page = (tmp_path / "page.html").read_text()
    for words in (
        "might be exceeded",
        "prompt found",
        "Prompts raced",
        "share",
        "zo-bilevel prompt",
    ):
        assert words in page


def test_an_example_without_an_answer_costs_the_row_of_its_prompt_alone(server, command):
    def model(body):  # the plain prompt, to a held-out text
        if body["messages"][0]["role"] == "user" and "1950" in body["messages"][0]["content"]:
            return 500, {"error": "broken"}
        return years(body)

    server.model = model
    text = starter(server)
    text = text.partition("[proposer]")[0].replace(
        "max_tokens = 16", "max_tokens = 16\nretries = 0"
    )
    first = command("--json", "--seeds", "4", text=text)
    assert first.exit_code == 1, first.output
    rows = json.loads(first.stdout)["rows"]
    assert len(rows) == 4
    (lost, *_) = [row for row in rows if row["fault"]]
    assert set(lost["scores"]) == {"hand-written", "hand-written with form", "found"}
    assert set(lost["gains"]) == set(lost["scores"])
    said = " ".join(command("--seed", str(lost["seed"]), text=text).output.split())
    assert "hand-written with form 0." in said
    for words in ("Not scored: 'no prompt' at example ", "1950", "status 500"):
        assert words in said


def interrupting(server, is_time):
    """The scripted model; the first time that is told of, somebody presses Ctrl-C."""
    pressed = []

    def model(body):
        if not pressed and is_time(body):
            pressed.append(body)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return years(body)

    server.model = model


def is_plain(body):
    return len(body["messages"]) == 1 and "instruction" not in str(body)


@pytest.mark.parametrize("in_seed", [0, 1])
def test_ctrl_c_keeps_the_seeds_that_are_found(server, command, tmp_path, in_seed):
    text = starter(server).partition("[proposer]")[0]
    if in_seed:  # in its search: the one before is scored
        asked = json.loads(command("--json", text=text).stdout)["spent"]["model"]["calls"]
        server.seen.clear()
        interrupting(server, lambda body: len(server.seen) > asked + 5)
    else:  # after its search, in the row that matters less
        interrupting(server, is_plain)
    words = ("--seeds", "2", "--save", "found", "--report", "page.html")
    answer = command(*words, text=text)
    assert answer.exit_code == 130, answer.output
    said = " ".join(answer.output.split())
    assert "Best on its validation share (seed 0)" in said
    assert "run the same command again: without --store no answer was kept" in said.casefold()
    scores = load_prompt(tmp_path / "found").card["scores"]
    assert scores["held_out_found"]["value"] == 1.0
    assert "interrupted" in (tmp_path / "page.html").read_text()
    assert ("'no prompt': interrupted" in said) == (not in_seed)


@pytest.mark.parametrize("store", [(), ("--store", "runs.sqlite")])
def test_ctrl_c_in_the_first_search_tells_what_becomes_of_the_answers(server, command, store):
    interrupting(server, lambda body: len(server.seen) > 2)
    answer = command(*store)
    assert answer.exit_code == 130
    kept = "kept in runs.sqlite.bill, and the same command goes on" if store else "nothing is kept"
    assert "interrupted before any prompt was raced" in answer.output
    assert kept in " ".join(answer.output.split())
    interrupting(server, lambda body: len(server.seen) > 45)
    later = command("--save", "found")
    assert later.exit_code == 130
    assert "Best of the races so far (seed 0)" in later.output
    assert set(load_prompt("found").card["scores"]) == {"races"}


def test_what_lost_calls_can_have_cost_is_told_apart_from_what_answers_cost(server, command):
    text = starter(server).partition("[proposer]")[0].replace("= 200", "= 40")
    command("--store", "runs.sqlite", text=text)
    killed = Bill("a call that was under way")
    killed.keep_in(bill_file("runs.sqlite"))
    killed.add(0.5)
    said = " ".join(CliRunner().invoke(main, ["runs", "runs.sqlite"]).output.split())
    found = re.search(r"answers, which cost ([\d.e-]+), ([\d.e-]+) with what calls", said)
    cost, most = map(float, found.groups())
    assert 0.0 < cost < 0.1 < 0.5 <= most


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_asked(server, command):
    for path in ("a.toml", "a.toml/found"):
        answer = command("--save", path)
        assert answer.exit_code == 2, answer.output
        assert "save must be a folder, or one that can be made: 'a.toml' is a file" in answer.output
    assert not server.seen


def test_the_cap_of_the_model_leaves_enough_to_judge_what_was_raced(server, command, tmp_path):
    text = starter(server).partition("[proposer]")[0].replace("= 200", "= 80")
    cost = json.loads(command("--json", text=text).stdout)["rows"][0]["found"]["cost"]
    capped = text.replace("max_tokens = 16", f"max_tokens = 16\nmax_cost = {0.8 * cost}")
    words = ("--store", "runs.sqlite", "--save", "found", "--json")
    answer = command(*words, text=capped)
    assert answer.exit_code == 1, answer.output
    (row,) = json.loads(answer.stdout)["rows"]
    assert row["found"]["is_judged"]
    assert "left of the model's max_cost=" in row["found"]["stop_reason"]
    assert row["found"]["score"] == 1.0
    (again,) = json.loads(command(*words, text=capped).stdout)["rows"]
    for name in ("phi", "score", "cost", "answers", "tried"):
        assert again["found"][name] == row["found"][name]
