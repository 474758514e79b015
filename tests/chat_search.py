"""Forty texts with years, a scripted model that is better with some prompts, and its tasks."""

import pytest
from chat_servers import completion

from zo_bilevel.adapters import ChatModel, PromptTask, PromptTemplate
from zo_bilevel.adapters.prompts.metrics import exact_match

ROWS = [(f"made in {1800 + k}", str(1800 + k)) for k in range(40)]
TEXTS, YEARS = zip(*ROWS, strict=True)
PLAIN, MAGIC = "Which year?", "Write only the digits."


def scripted(body):
    """Right for an eighth of the texts, more with late examples, for all when told MAGIC."""
    messages = body["messages"]
    text = messages[-1]["content"]
    if "Write only the instruction." in text:
        answer = f'New instruction: "{MAGIC}"' if "mistakes" in text else '"Be nice."'
        return 200, completion(answer, prompt_tokens=len(text), completion_tokens=20)
    late = sum(m["role"] == "assistant" and m["content"] >= "1804" for m in messages)
    share = 8 if messages[0]["content"] == MAGIC else 1 + late
    right = int(text[-4:]) % 8 < share
    tokens = sum(len(m["content"]) for m in messages)
    return 200, completion(text[-4:] if right else "no idea", prompt_tokens=tokens)


def tasks():
    """A fixture that makes a `PromptTask` of the fixture `server`, as often as it is called."""

    @pytest.fixture(name="make")
    def made_tasks(server):
        made = []

        def task(num_shown=0, metric=exact_match, rows=40, **options):
            options = {"prices": {"tiny": (2.0, 10.0)}, "max_concurrent": 2, **options}
            made.append(ChatModel(server.url, "tiny", key_variable=None, **options))
            template = PromptTemplate(
                "{text}",
                "{ask}",
                slots={"ask": [PLAIN, "Hello."]},
                examples=ROWS[:8],
                num_shown=num_shown,
                as_turns=True,
            )
            return PromptTask(made[-1], template, TEXTS[:rows], YEARS[:rows], metric)

        yield task
        for chat in made:
            chat.close()

    return made_tasks
