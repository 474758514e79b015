"""Choose the wording and the examples of a chat prompt behind an API, within a sum of money.

With OPENAI_BASE_URL, OPENAI_API_KEY and CHAT_MODEL set it asks that model, else a stand-in on
127.0.0.1: it goes by keywords, then by the last example, and only when told what it may answer.
"""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import zo_bilevel as zb
from zo_bilevel.adapters import ChatAPI, PromptTemplate
from zo_bilevel.tasks.docstrings import docstring_rows
from zo_bilevel.tasks.prompt_data import from_rows, split_shots
from zo_bilevel.tasks.scoring import score_logits

KEYWORDS = {"files": ("file", "path", "director"), "time": ("time", "date", "day", "month")}
ASK = ["What is it about?", "Answer with a topic.", "Topic?", "Label the text.", "Files or time?"]
FORM = ["", "Be brief.", "Explain.", "Answer with one word.", "Answer as JSON.", "Think first."]


class StandIn(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question, _, text = body["messages"][-1]["content"].rpartition("Text:")
        hits = {t: sum(w in text.lower() for w in words) for t, words in KEYWORDS.items()}
        best, last = max(hits, key=hits.get), question.rpartition("Label:")[2].split()[:1]
        answer = best if hits[best] else "".join(last)
        rambles = "one word" not in question and len(text) % 3 == 0
        answer = answer if "Files or time" in question and not rambles else "It depends."
        usage = {"prompt_tokens": len(str(body)) // 4, "completion_tokens": 1}
        reply = {"choices": [{"message": {"role": "assistant", "content": answer}}], "usage": usage}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_):
        pass


def stand_in():
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"


def main():
    url, model = os.environ.get("OPENAI_BASE_URL"), os.environ.get("CHAT_MODEL", "stand-in")
    rows = [row for row in docstring_rows() if row[1] in KEYWORDS]
    split = split_shots(from_rows(rows), shots=8, seed=0, max_test=40)
    shown = list(zip(split.train.texts[::2], split.train.labels[::2], strict=True))
    template = PromptTemplate(
        "{ask} {form}\n\n{examples}\n\nText: {text}\nLabel:",
        **{"slots": {"ask": ASK, "form": FORM}, "examples": shown, "num_shown": 2},
    )
    key_variable, prices = "OPENAI_API_KEY" if url else None, {model: (0.15, 0.60)}
    api = ChatAPI(
        *(url or stand_in(), model, template, split.train.texts, split.train.labels),
        **{"key_variable": key_variable, "prices": prices, "max_cost": 1.0},
    )
    problem = zb.Problem(template.space(), api, zb.CrossEntropy(api.labels), name="chat prompt")
    methods = {
        "zo_bilevel": zb.DefaultMethod(),
        "smoothed scores": zb.GradientMethod(zb.FG2UZO(4, directions="gaussian"), lr=0.3),
        "nevergrad:DiscreteOnePlusOne": zb.Nevergrad("DiscreteOnePlusOne"),
        "random": zb.RandomSearch(),
    }
    comparison = zb.compare(problem, methods, max_solves=40, initial=template.start)
    print(comparison.table(), api.ledger.facts(), sep="\n")
    best = min(comparison.runs, key=lambda run: run.loss)
    print(f"\n{template.text(best.phi)}\n")
    labels = [api.classes.index(label) for label in split.test.labels]
    for name, phi in (("by hand", template.start), (best.method, best.phi)):
        scores = score_logits(api.logits(phi, split.test.texts), labels)
        print(f"held out, {name}: accuracy {scores.accuracy}")


if __name__ == "__main__":
    main()
