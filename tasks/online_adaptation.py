"""Online adaptation of a language model: learn which tokens of a document are worth learning.

phi is a linear head on the frozen model's hidden states that gives each token a loss weight; the
inner loop takes some SGD steps of a GPT-2 on documents with the weighted loss; the inner solution
is the loss on questions about those documents afterwards, and how far the model moved on other
text (KL); the outer objective adds them.

Documents are small facts amid idle talk (`facts.py`), on which a small GPT-2 of words is trained
here, or a file of one's own. phi is learnt on half of them; a quarter is for choosing settings, and
a quarter for reporting.

Source: Hu et al. (2023), "Meta-Learning Online Adaptation of Language Models" (CaMeLS), arXiv
2305.15076; unrolls of 6, 24 and 48 as in arXiv 2406.14095, section 4.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch

from zo_bilevel.adapters.torch_unroll.deferred import Deferred
from zo_bilevel.adapters.torch_unroll.functional_module import FunctionalModule
from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll
from zo_bilevel.problem.parameters import Real
from zo_bilevel.problem.problem import Problem
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.task import Task
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.errors import InputError
from zo_bilevel.tasks.documentation import documents, rows_of_bytes
from zo_bilevel.tasks.facts import facts, rows_of_words, text_of_words
from zo_bilevel.tasks.language_models import (
    from_checkpoint,
    make_gpt2,
    text_of_bytes,
    token_losses,
    train_on,
)
from zo_bilevel.tasks.question_answering import Quality, greedy, judged, read_questions

PUBLISHED = {
    "StreamingQA F1, DistilGPT2, RGU depth 6 (arXiv 2406.14095)": 5.53,
    "StreamingQA F1, DistilGPT2, (FG)2U depth 24 or 48 (arXiv 2406.14095)": 6.37,
}


@final
@dataclass(frozen=True, slots=True)
class Size:
    """What a size of the task means.

    Args:
        width: Of the GPT-2 trained here.
        layers: Of it.
        length: Words of a document or question; four times as many characters or tokens.
        pretraining: Steps of Adam on the other documents before anything else.
        unroll: Inner steps.
        documents: Documents a solve.
        learning_rate: Of an inner step.
    """

    width: int
    layers: int
    length: int
    pretraining: int
    unroll: int
    documents: int
    learning_rate: float = 0.1


SIZES = {
    "smoke": Size(32, 1, 24, 60, 3, 2),
    "small": Size(32, 2, 24, 600, 6, 4),
    "full": Size(384, 6, 64, 20000, 24, 8, 0.05),
}
CHARACTERS_A_WORD = 4
KNOWN_FACTS = 64
"""Facts that the model is trained on before anything else."""
MOST_JUDGED = 256
"""Questions of a part that are judged."""
Part = Literal["validation", "test"]


@final
class Adaptation:
    """The model, the documents and the loop.

    Args:
        size: Sizes of everything.
        unroll: Inner steps.
        checkpoint: A local or hub checkpoint of a causal model, or `None` to train one here.
        device: Where all of it lives.
        locality: Weight of the KL term.
        questions: File of JSON lines with documents, questions and answers, at least four, or
            `None` for our facts.

    Raises:
        InputError: If there are fewer than four questions.
    """

    def __init__(
        self,
        size: Size,
        unroll: int,
        checkpoint: str | None,
        device: str,
        locality: float,
        questions: str | None = None,
    ) -> None:
        self.size, self.locality = size, locality
        length = size.length
        encode, self.decode = rows_of_words, text_of_words
        self.asked = list(facts()[KNOWN_FACTS:])
        known = [text for fact in facts()[:KNOWN_FACTS] for text in (fact.document, fact.asked)]
        if questions is not None:
            self.asked = read_questions(questions)
            known = [document.text for document in documents()]
            encode, self.decode = rows_of_bytes, text_of_bytes
        count = len(self.asked)
        if count < 4:
            raise InputError(
                "questions must hold at least four lines, half to learn on and a quarter each to "
                f"choose settings and to report, got {count}"
            )
        self.parts = {
            "validation": range(count // 2, count - count // 4),
            "test": range(count - count // 4, count),
        }
        if checkpoint or questions is not None:
            length *= CHARACTERS_A_WORD
        if checkpoint:
            self.model, encode, self.decode = from_checkpoint(checkpoint)
        else:
            self.model = make_gpt2(width=size.width, layers=size.layers, length=length)
        self.length = length
        self.model.to(device)

        def rows(texts: list[str]) -> torch.Tensor:
            return torch.from_numpy(encode(texts, length)).to(device)

        self.known = rows(known)
        self.documents = rows([q.document for q in self.asked])
        self.questions = rows([q.asked for q in self.asked])
        self.prompts = [
            row[row != 0].tolist() for row in encode([q.question for q in self.asked], length)
        ]
        starts = torch.tensor([len(prompt) for prompt in self.prompts], device=device)[:, None]
        places = torch.arange(1, length, device=device)
        self.is_answer = (places >= starts) & (self.questions[:, :-1] != 0)
        if not checkpoint:
            train_on(self.model, self.known, size.pretraining)
        self.model.requires_grad_(False)
        self.weights = {name: w.detach() for name, w in self.model.named_parameters()}
        self.call = FunctionalModule(self.model, self.weights)
        self.loop = TorchUnroll(
            self.init, self.step, unroll, read=self.read, dtype=torch.float32, device=device
        )

    def logits(self, weights: Mapping[str, torch.Tensor], tokens: torch.Tensor) -> Any:  # noqa: ANN401
        """Logits of the model with these weights."""
        return self.call(weights, tokens).logits

    def token_weights(self, phi: Mapping[str, Any], tokens: torch.Tensor) -> torch.Tensor:
        """Weight of each token of a document, >= 0, by the frozen model's last hidden state."""
        with torch.no_grad():
            hidden = self.model(tokens, output_hidden_states=True).hidden_states[-1][:, 1:]
        scores = hidden @ phi["head"] + phi["bias"]
        return torch.nn.functional.softplus(scores)

    def init(self, phi: Any, seed: int = 0) -> dict[str, Any]:  # noqa: ANN401, ARG002
        """The model's weights, and which documents this solve is about."""
        generator = torch.Generator().manual_seed(seed)
        learnt = len(self.documents) // 2
        rows = torch.randperm(learnt, generator=generator)[: self.size.documents]
        return {"weights": self.weights, "rows": rows.to(self.documents.device)}

    def step(self, theta: Any, phi: Any, t: int, batch: Any) -> dict[str, Any]:  # noqa: ANN401, ARG002
        """One SGD step on the weighted loss of the documents."""
        tokens = self.documents[theta["rows"]]
        weights = self.token_weights(phi, tokens)

        def loss(model_weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
            losses = token_losses(self.logits(model_weights, tokens), tokens)
            return (weights * losses).sum() / (tokens[:, :-1] != 0).sum()

        gradient = torch.func.grad(loss)(theta["weights"])
        rate = self.size.learning_rate
        after = {name: w - rate * gradient[name] for name, w in theta["weights"].items()}
        return {"weights": after, "rows": theta["rows"]}

    def read(self, theta: Any, phi: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401, ARG002
        """Loss on the answers, and KL on text that has nothing to do with the documents."""
        questions = self.questions[theta["rows"]]
        asked = self.is_answer[theta["rows"]]
        losses = token_losses(self.logits(theta["weights"], questions), questions)
        other = self.known[: self.size.documents]
        with torch.no_grad():
            before = torch.log_softmax(self.model(other).logits, dim=-1)
        after = torch.log_softmax(self.logits(theta["weights"], other), dim=-1)
        moved = (before.exp() * (before - after)).sum(dim=-1).mean()
        return {"answers": (losses * asked).sum() / asked.sum().clamp(min=1), "moved": moved}

    def quality(self, phi: Mapping[str, Any], part: Part = "test") -> Quality:
        """How well questions are answered after adaptation to their documents.

        Args:
            phi: Named values.
            part: Of the questions, none of them among those that phi is learnt on.
        """
        answers, right, losses = [], [], []
        values, together = self.loop.tensors(phi), self.size.documents
        part_rows = self.parts[part][:MOST_JUDGED]
        with torch.no_grad():
            for start in range(0, len(part_rows), together):
                rows = list(part_rows[start : start + together])
                theta: Any = {"weights": self.weights, "rows": torch.tensor(rows)}
                for t in range(self.loop.num_steps):
                    theta = self.step(theta, values, t, None)
                losses.append(float(self.read(theta, values)["answers"]))

                def logits(tokens: torch.Tensor, weights: Any = theta["weights"]) -> Any:  # noqa: ANN401
                    return self.logits(weights, tokens.to(self.documents.device))

                given = greedy(logits, [self.prompts[row] for row in rows], self.length)
                answers += [self.decode(codes) for codes in given]
                right += [self.asked[row].answer for row in rows]
        return judged(answers, right, losses)

    def outer(self, theta: Any, phi: Any) -> Any:  # noqa: ANN401, ARG002
        """Loss on the answers plus the weighted KL."""
        return theta["answers"] + self.locality * theta["moved"]


def task(
    size: str = "small",
    unroll: int | None = None,
    checkpoint: str | None = None,
    device: str = "cpu",
    locality: float = 0.1,
    questions: str | None = None,
) -> Task:
    """Learn token weights.

    Args:
        size: "smoke" (seconds), "small" (minutes on a CPU) or "full" (a GPU).
        unroll: Inner steps, 6, 24 or 48 in the paper; `None` as the size says.
        checkpoint: A local or hub checkpoint by name; `None` trains a small GPT-2 here.
        device: "cpu" or "cuda".
        locality: Weight of the KL term, >= 0.
        questions: File of JSON lines with "document", "question" and "answer"; `None` asks
            about small facts.

    Returns:
        The task. The start weighs all tokens alike: plain fine-tuning.

    Raises:
        InputError: If an option breaks its rule.
        MissingPackageError: If transformers is not installed.
    """
    if size not in SIZES:
        raise InputError(f"size must be one of {sorted(SIZES)}, got {size!r}")
    if unroll is not None:
        unroll = whole_number("unroll", unroll, least=1)
    finite_number("locality", locality, ">= 0")
    steps = SIZES[size].unroll if unroll is None else unroll
    inner = Deferred(
        Adaptation,
        size=SIZES[size],
        unroll=steps,
        checkpoint=checkpoint,
        device=device,
        locality=locality,
        questions=questions,
    )
    width = SIZES[size].width
    if checkpoint is not None:
        width = inner.built.model.get_input_embeddings().weight.shape[1]
    space = Space(head=Real(-3, 3, shape=(width,)), bias=Real(-6, 6))
    name = f"online-adaptation-{size}-{steps}-{checkpoint}-{questions}"
    return Task(
        name="online-adaptation",
        summary="which tokens of a document a language model should learn from",
        problem=Problem(space, inner, inner.outer, name=name),
        start=lambda seed: {"head": np.zeros(width), "bias": 0.54},  # noqa: ARG005 - softplus = 1
        published=PUBLISHED,
        max_solves=1000,
    )
