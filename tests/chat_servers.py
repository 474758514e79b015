"""Servers on 127.0.0.1 for tests: a scripted chat model, and a proxy that breaks things."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from zo_bilevel.adapters.prompts import chat_client


def completion(text, prompt_tokens=10, completion_tokens=1, logprobs=None):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    if logprobs is not None:
        top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return {"choices": [choice], "usage": usage}


RAW = {
    "malformed-before": b'{"choices": [',
    "page": b"<!doctype html><style>p { color: red }</style><p>Please <b>sign in</b>",
}
"""Bodies of answers that no model wrote; "page:502" has that status."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait 40 ms for an acknowledgement

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.seen.append((time.monotonic(), body, dict(self.headers)))
            server.running += 1
            server.most = max(server.most, server.running)
            fault = server.plan.pop(0) if server.plan else "ok"
        try:
            self.respond(fault, body)
        except ConnectionError:
            pass
        finally:
            with server.lock:
                server.running -= 1

    def respond(self, fault, body):
        name, _, detail = fault.partition(":")
        if name == "status":
            code, _, wait = detail.partition(",")
            headers = {"Retry-After": wait} if wait else {}
            text = f"refused {self.headers.get('Authorization', '')}"
            return self.send(int(code), {"error": text}, headers)
        if name == "cut-before":
            return self.cut()
        if name in RAW:
            return self.send(int(detail or 200), RAW[name])
        status, document = self.server.model(body)
        with self.server.lock:
            usage = document.get("usage", {})
            self.server.answers += status == 200
            self.server.prompt_tokens += usage.get("prompt_tokens", 0)
            self.server.completion_tokens += usage.get("completion_tokens", 0)
        if name == "cut-after":
            return self.cut()
        if name == "slow":
            time.sleep(float(detail))
        if name == "empty":
            document = {**document, "choices": []}
        if name == "unmetered":
            document = {"choices": document["choices"]}
        return self.send(status, document)

    def cut(self):
        self.close_connection = True
        self.connection.close()

    def send(self, status, document, headers=None):
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def start(model):
    """A server that answers with `model(body) -> (status, document)` unless its plan says else.

    Its own counts: `answers`, `prompt_tokens`, `completion_tokens`, delivered or not.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.model, server.lock = model, threading.Lock()
    server.seen, server.plan = [], []
    server.running = server.most = 0
    server.answers = server.prompt_tokens = server.completion_tokens = 0
    server.thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    server.thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    return server


def stop(server):
    server.shutdown()
    server.server_close()
    server.thread.join(5)


def serving(model):
    """A fixture that is a server of this model, asked again without long waits after a fault."""

    @pytest.fixture(name="server")
    def running(monkeypatch):
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setattr(chat_client, "FIRST_WAIT_S", 0.01)
        server = start(model)
        yield server
        stop(server)

    return running


def forward_to(url):
    """A model that is another server: what a proxy answers with."""

    def model(body):
        response = httpx.post(f"{url}/chat/completions", json=body, timeout=60, trust_env=False)
        return response.status_code, response.json()

    return model
