"""A scripted chat model that answers with years, and the prompts that make it."""

from chat_servers import completion

TEXTS, YEARS = ["built in 1901", "sold in 1950", "made in 1777"], ["1901", "1950", "1777"]
SLOTS = {"ask": ["Hello.", "Which year?", "Only the year!"]}
GOOD = {"ask": "Only the year!"}


def years(body):
    """A sentence, unless told to write only the year."""
    text = body["messages"][-1]["content"]
    answer = text[-4:] if "Only" in text else f"The year is {text[-4:]}."
    return 200, completion(answer if "year" in text else "Hello!", prompt_tokens=len(text))
