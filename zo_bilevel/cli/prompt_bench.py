"""What `zo-bilevel prompt` measures: every method on the same examples, judged on held-out ones."""

import dataclasses
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, final

import numpy as np

from zo_bilevel.adapters.prompts.frozen_transformer import FrozenTransformer
from zo_bilevel.adapters.prompts.label_words import better_label_words
from zo_bilevel.adapters.prompts.language_model import LanguageModel
from zo_bilevel.adapters.prompts.prompt_folds import folded
from zo_bilevel.adapters.prompts.prompt_reader import PromptReader
from zo_bilevel.adapters.prompts.prompt_selection import Selection
from zo_bilevel.adapters.prompts.prompted_transformer import PromptedTransformer
from zo_bilevel.adapters.prompts.soft_prompt import SoftPrompt
from zo_bilevel.adapters.prompts.transformer_head import Head
from zo_bilevel.adapters.prompts.tuned_prompt import judge_of, tuned_prompt
from zo_bilevel.cli.loading import parse_settings
from zo_bilevel.cli.prompt_table import PROBE, Found
from zo_bilevel.comparison.observed_method import ObservedMethod
from zo_bilevel.methods.base import Method
from zo_bilevel.run.loop import minimize
from zo_bilevel.run.progress import Progress
from zo_bilevel.run.result import Record, Result
from zo_bilevel.run.runs import Improvement, Run
from zo_bilevel.solve.dispatch.batched import Batched
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError
from zo_bilevel.support.json_data import to_plain
from zo_bilevel.tasks import prompts
from zo_bilevel.tasks.prompt_data import Split, read_texts, split_shots
from zo_bilevel.tasks.prompts import DRAWN_BOUND
from zo_bilevel.tasks.scoring import paired_difference, score_logits

OURS, HAND_WRITTEN = "gauss-newton", "hand-written"
POPULATION_SIZE = 20
VALIDATION_SHARE = 0.25
"""Share of the shots that chooses what is kept, where it is a whole example of each class."""
PROBE_STRENGTH = 10.0
"""Inverse of the penalty of the linear probe, for embeddings of unit length."""


@final
class SoftPromptBench:
    """The data, the model, and the same examples for every method."""

    def __init__(
        self, options: Mapping[str, Any], seed: int, model: LanguageModel | None = None
    ) -> None:
        self.options, self.seed = options, seed
        columns = {name: options[name] for name in ("text_column", "label_column")}
        texts = read_texts(options["data"], **columns) if options["data"] else prompts.load_texts()
        self.split: Split = split_shots(texts, options["shots"], seed, max_test=options["max_test"])
        given = parse_settings("--word", options["label_words"])
        self.words = {**prompts.label_words(texts), **{k: str(v) for k, v in given.items()}}
        self.prompt: SoftPrompt = SoftPrompt(
            options["words"] or prompts.DEFAULT_WORDS,
            options["tokens"],
            options["latent"],
            seed=seed,
        )
        share = options["validation"]
        count = round(options["shots"] * (VALIDATION_SHARE if share is None else share))
        if (share is not None and not 0 <= share < 1) or (share and not count):
            raise InputError(
                f"validation must be a share in [0, 1) that leaves an example of each class, got "
                f"{share} of {options['shots']}"
            )
        self.train, self.validation = self.split.train, None
        self.folds = options["folds"] or 0
        if self.folds:
            if share is not None:
                raise InputError("give validation or folds: each part is such a share")
            folded(self.train.labels, self.folds)
            count = 0
        if count:
            parts = split_shots(self.split.train, options["shots"] - count, seed)
            self.train, self.validation = parts.train, parts.test
        self.model = model or self._load(options["model"] or prompts.DEFAULT_MODEL)
        self.ours = self.solver(self.prompt)
        self._right: FloatArray | None = None

    def _load(self, source: str) -> LanguageModel:
        asked = {name: self.options[name] for name in ("device", "precision")}
        return LanguageModel(source, self.options["kind"], **asked)

    def solver(self, prompt: SoftPrompt) -> FrozenTransformer:
        """The examples under a soft prompt of these settings."""
        train, template = self.train, self.options["template"]
        return FrozenTransformer(
            self.model, train.texts, train.labels, self.words, prompt=prompt, template=template
        )

    @property
    def title(self) -> str:
        """What the table is about."""
        train, test = self.split.train, self.split.test
        return (
            f"{self.options['shots']} examples of each of {len(train.classes)} classes, "
            f"{len(test)} held-out texts, {self.model.name}"
        )

    def hand_written(self) -> Found:
        """The prompt that tuning starts from."""
        theta = self.ours(self.ours_start())
        loss = self.ours.problem().outer.loss(np.asarray(theta, dtype=np.float64).ravel())
        run = Run(
            HAND_WRITTEN,
            self.seed,
            loss=float(loss),
            solves=1,
            rounds=1,
            stop_reason="not tuned",
            improvements=(Improvement(1, 1, 0.0, float(loss)),),
        )
        return self._found(run, self._logits(None))

    def others(self) -> list[Found]:
        """Rows that keep us honest: no prompt, better label words, a probe on a frozen encoder."""
        reader, test = self.ours.reader, self.split.test
        bare = PromptedTransformer(reader, self.ours.soft_prompt.start[:0].float())
        rows = [("no prompt", np.asarray(bare.logits(test.texts), dtype=np.float64))]
        if self.model.kind != "classifier":
            rows.append(("label words", self._with_better_words()))
        if self.model.kind == "encoder" and find_spec("sklearn") is not None:
            from sklearn.linear_model import LogisticRegression

            known = self.split.train
            train, asked = (
                reader.vectors(reader.ready(part.texts, 0)).float().cpu().numpy()
                for part in (known, test)
            )
            probe = LogisticRegression(max_iter=1000, C=PROBE_STRENGTH).fit(train, known.labels)
            order = [list(probe.classes_).index(name) for name in self.ours.classes]
            rows.append((PROBE, probe.predict_log_proba(asked)[:, order]))
        runs = [Run(name, self.seed, stop_reason="not tuned") for name, _ in rows]
        return [self._found(run, logits) for run, (_, logits) in zip(runs, rows, strict=True)]

    def _with_better_words(self) -> FloatArray:
        """Logits with label words chosen on the examples, where the validation share agrees."""
        own, known = self.ours.prompted(), self.train
        words = better_label_words(self.ours.reader, own.matrix, known.texts, known.labels)
        head = self.ours.reader.head
        other = Head(self.model, words, head.template, head.scale)
        found = PromptedTransformer(PromptReader(other), own.matrix)
        if self.validation is not None:
            labels = [self.ours.classes.index(label) for label in self.validation.labels]
            scores = [score_logits(p.logits(self.validation.texts), labels) for p in (found, own)]
            losses = [score.cross_entropy.value for score in scores if score.cross_entropy]
            found = found if losses[0] < losses[-1] else own
        return np.asarray(found.logits(self.split.test.texts), dtype=np.float64)

    def _logits(self, phi: Mapping[str, Any] | None, solver: Any = None) -> FloatArray:  # noqa: ANN401
        logits = (solver or self.ours).prompted(phi).logits(self.split.test.texts)
        return np.asarray(logits, dtype=np.float64)

    def _found(self, run: Run, logits: FloatArray, result: Result | None = None) -> Found:
        """Scores on held-out texts, and how far they are from the hand-written prompt's."""
        labels = [self.ours.classes.index(label) for label in self.split.test.labels]
        right = (logits.argmax(axis=1) == labels).astype(float)
        if self._right is None:
            self._right = right
        gain = paired_difference(right, self._right)
        return Found(run, score_logits(logits, labels), result, gain)

    def selection(self, solver: FrozenTransformer, calls: int) -> Selection:
        """Keeps the prompt that is best on the validation share."""
        known = self.validation
        judge = None if known is None else judge_of(solver, known.texts, known.labels)
        return Selection(judge, calls)

    def run(self, name: str, method: Method, progress: Progress, place: int, count: int) -> Found:
        """One method, on the same examples and calls as the others."""
        calls = self.options["max_calls"]
        runs: list[Run] = []
        results: list[Result] = []
        drawn = dataclasses.replace(self.prompt, bound=DRAWN_BOUND)
        prompt = self.prompt if name == OURS else drawn
        width = 1 if name == OURS else POPULATION_SIZE

        def tune(
            solver: FrozenTransformer, calls_here: int, see: Callable[[Record], None]
        ) -> Result:
            traced = ObservedMethod(method, name)

            def observe(record: Record) -> None:
                traced.observe(record)
                see(record)
                done = sum(run.solves for run in runs) + record.solve
                words = f"{name}: {done} of {calls} calls"
                progress.update((place + done / calls) / count, words, record.best_loss)

            result = minimize(
                solver.problem(),
                traced,
                max_solves=calls_here,
                seed=self.seed,
                dispatcher=Batched(),
                round_width=width,
                callback=observe,
            )
            runs.append(traced.finished(result))
            results.append(result)
            return result

        solver = self.ours if name == OURS else self.solver(prompt)
        own = self.validation
        known = None if own is None else (own.texts, own.labels)
        phi = tuned_prompt(solver, tune, calls, validation=known, folds=self.folds)
        result, solves = results[-1], sum(run.solves for run in runs)
        seconds = sum(run.seconds for run in runs)
        loss = judge_of(solver, self.train.texts, self.train.labels)(phi)  # of what is kept
        run = dataclasses.replace(runs[-1], solves=solves, seconds=seconds, loss=loss)
        kept = dataclasses.replace(result, phi=dict(phi or self.ours_start()), loss=loss)
        return self._found(run, self._logits(phi, solver), kept)

    def ours_start(self) -> dict[str, Any]:
        """The latent numbers of the hand-written prompt."""
        return {"latent": np.zeros(self.options["latent"])}

    def save(self, found: list[Found], folder: str) -> None:
        """Write what our method found, if it came so far."""
        for row in found:
            if row.run.method == OURS and row.result is not None:
                scores = to_plain({"train_loss": row.run.loss, "held_out": row.scores})
                self.ours.prompted(row.result.phi).save(folder, row.result, scores)
