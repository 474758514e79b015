"""Soft prompts of a frozen MiniLM on k-shot texts: ours against CMA-ES at equal calls.

python benchmarks/prompts.py tuning --calls 1000    # hours on one core
python benchmarks/prompts.py tuning --calls 1000 --shots 4 --methods gauss-newton
python benchmarks/prompts.py time                   # a call against a bare batched forward pass
python benchmarks/prompts.py throughput --device cuda --precision bfloat16
"""

import argparse
import dataclasses
import time

import numpy as np
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import FrozenTransformer, LanguageModel, SoftPrompt
from zo_bilevel.cli.prompt_bench import SoftPromptBench
from zo_bilevel.tasks import prompts
from zo_bilevel.tasks.prompt_data import split_shots

BUDGETS = (100, 300, 1000)
METHODS = {
    "gauss-newton": (zb.GaussNewton, 300.0, 1),
    "cma, population 20": (zb.CMA, 3.0, 20),
    "cma, first step 1/3": (zb.CMA, 1.0, 20),
}


def make_solver(split, words, model, bound, seed):
    prompt = SoftPrompt(prompts.DEFAULT_WORDS, latent_size=200, bound=bound, seed=seed)
    return FrozenTransformer(model, split.train.texts, split.train.labels, words, prompt=prompt)


def tuning(arguments):
    """Held-out scores of the prompt that validation keeps, after each budget of one run a seed."""
    budgets = [b for b in BUDGETS if b < arguments.calls] + [arguments.calls]
    found, model = {}, LanguageModel(prompts.DEFAULT_MODEL, device=arguments.device)
    if arguments.layers:  # a cheaper encoder, for machines without the time
        model.model.encoder.layer = model.model.encoder.layer[: arguments.layers]
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        given = ("data", "words", "tokens", "kind", "model", "validation", "folds")
        options = {
            **dict.fromkeys(given),
            **{"text_column": "text", "label_column": "label", "label_words": (), "template": ""},
            **{"shots": arguments.shots, "max_test": arguments.max_test, "latent": 200},
            **{"device": arguments.device, "precision": arguments.precision},
        }
        bench = SoftPromptBench(options, seed, model)
        rows = [bench.hand_written(), *bench.others()]
        for row in rows:
            note(
                found,
                row.run.method,
                [row.run.loss if row.run.solves else np.nan, *both(row.scores)],
                seed,
            )
        for name in arguments.methods:
            method, bound, width = METHODS[name]
            solver = bench.solver(dataclasses.replace(bench.prompt, bound=bound))
            selection = bench.selection(solver, arguments.calls)
            result = zb.minimize(
                solver.problem(),
                method(),
                max_solves=arguments.calls,
                seed=seed,
                dispatcher=zb.Batched(),
                round_width=width,
                callback=selection.see,
            )
            best = {r.solve: r.best_loss for r in result.history}
            for budget in budgets:
                phi = selection.best(until=budget)[1]
                scores = prompts.held_out(solver, phi, bench.split.test)
                loss = best[min(budget, result.solves)]
                note(found, f"{name}, {budget} calls", [loss, *both(scores)], seed)
            print(f"seed {seed}, {name}: {result.solves} calls, {result.stop_reason}", flush=True)
    for name, rows in found.items():
        parts = [
            "{1:.3f} ({0:.3f} to {2:.3f})".format(*np.percentile(column, [25, 50, 75]))
            for column in zip(*rows, strict=True)
        ]
        print(f"{len(rows)} seeds, {name}: loss {parts[0]}, accuracy {parts[1]}, CE {parts[2]}")


def both(scores):
    return [scores.accuracy.value, scores.cross_entropy.value]


def note(found, name, values, seed):
    found.setdefault(name, []).append(values)
    print(f"seed {seed}, {name}:", *(f"{value:.3f}" for value in values), flush=True)


def time_of(function, repeats):
    best = np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def time_a_call(arguments):
    """One solve against the model's own forward pass on the same padded batches."""
    texts, model = prompts.load_texts(), LanguageModel(prompts.DEFAULT_MODEL)
    split = split_shots(texts, arguments.shots, 0)
    solver = make_solver(split, prompts.label_words(texts), model, 300.0, 0)
    phi = {"latent": np.zeros(200)}
    batches = []
    chosen = solver.texts.ids
    for chunk in solver.reader._chunks(chosen):
        embedded, mask = solver.reader._embedded([chosen[k] for k in chunk])
        tokens = solver.soft_prompt.num_tokens
        whole = torch.cat([embedded, embedded[:, :1].expand(-1, tokens, -1)], dim=1)
        batches.append((whole, torch.cat([mask, mask.new_ones(len(mask), tokens)], dim=1)))

    def bare():
        with torch.inference_mode():
            for whole, mask in batches:
                model.model(inputs_embeds=whole, attention_mask=mask)

    solver(phi)
    ours = plain = np.inf
    for _ in range(arguments.repeats):
        plain = min(plain, time_of(bare, 1))
        ours = min(ours, time_of(lambda: solver(phi), 1))
    print(f"bare forward {plain:.3f} s, a call {ours:.3f} s: {ours / plain:.3f} times")


def throughput(arguments):
    """Prompts a second of a random model of GPT-2's size on 64 texts, 32 prompts a round."""
    import transformers

    base = LanguageModel(prompts.DEFAULT_MODEL)
    config = transformers.GPT2Config(vocab_size=len(base.embeddings))
    random = transformers.GPT2LMHeadModel(config)
    model = LanguageModel(
        (random, base.tokenizer), device=arguments.device, precision=arguments.precision
    )
    split = split_shots(prompts.load_texts(), 10, 0)
    words = {name: name for name in split.train.classes}
    solver = make_solver(split, words, model, 300.0, 0)
    phis = {"latent": np.random.default_rng(0).normal(size=(arguments.prompts, 200))}
    seconds = time_of(lambda: solver.solve_batch(phis), 3)
    print(f"{arguments.prompts / seconds:.1f} prompts/s of {len(solver.labels)} texts")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="time", choices=["tuning", "time", "throughput"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--max-test", type=int, default=300)
    parser.add_argument("--layers", type=int, help="of the six; default all")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    what = {"tuning": tuning, "time": time_a_call, "throughput": throughput}
    what[arguments.what](arguments)


if __name__ == "__main__":
    main()
