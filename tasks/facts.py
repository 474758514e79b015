"""Small facts and questions about them, for language models that are trained in seconds.

A document is idle talk and one fact at its end, "Ada of north keeps copper lamp"; the question is
the fact without its last two words. Before it has read the document, a model can only guess among
eight materials and eight things.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from zo_bilevel.tasks.question_answering import Question

PEOPLE, PLACES, MATERIALS, THINGS, TALK = (
    words.split()
    for words in (
        "Ada Ben Cleo Dan Eva Finn Gus Hana Ida Jon Kim Leo Mia Ned Olga Pia",
        "north south east west hill lake mill forge harbour market abbey meadow",
        "copper silver wooden golden marble cotton paper silken",
        "lamp ring chair bell statue scarf kite purse",
        "today rain fell on many old streets while people walked home slowly and some talked about "
        "trade weather music food boats nothing else happened for long hours before night",
    )
)
TALK_LENGTH = 18
VOCABULARY = ["", "of", "keeps", *PEOPLE, *PLACES, *MATERIALS, *THINGS, *TALK]
"""Words by code; code 0 ends a text."""


@functools.cache
def facts() -> tuple[Question, ...]:
    """One fact about each of 192 people, always the same.

    Example:
        >>> facts()[0].document.endswith(facts()[0].question + facts()[0].answer)
        True
    """
    rng = np.random.default_rng(0)
    found = []
    for person in rng.permutation([f"{name} of {place}" for name in PEOPLE for place in PLACES]):
        talk = " ".join(rng.choice(TALK, TALK_LENGTH))
        answer = f"{rng.choice(MATERIALS)} {rng.choice(THINGS)}"
        found.append(Question(f"{talk} {person} keeps {answer}", f"{person} keeps ", answer))
    return tuple(found)


def rows_of_words(texts: list[str], length: int) -> NDArray[np.int64]:
    """Texts as rows of codes of words, cut or filled with code 0.

    Args:
        texts: Words of `VOCABULARY`.
        length: Columns.

    Returns:
        Shape `(rows, length)`, int64.

    Example:
        >>> rows_of_words(["Ada keeps"], 3).tolist()
        [[3, 2, 0]]
    """
    rows = np.zeros((len(texts), length), dtype=np.int64)
    for row, text in zip(rows, texts, strict=True):
        codes = [VOCABULARY.index(word) for word in text.split()[:length]]
        row[: len(codes)] = codes
    return rows


def text_of_words(codes: list[int]) -> str:
    """Codes as text; those of no word are left out."""
    return " ".join(VOCABULARY[code] for code in codes if code < len(VOCABULARY))
