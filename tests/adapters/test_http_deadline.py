"""HTTPService: the time limit is on the whole request, whatever a server sends."""

from __future__ import annotations

import gzip
import socket
import threading
import time

import pytest

from zo_bilevel.adapters import HTTPService
from zo_bilevel.support.errors import SolveError, SolveTimeoutError


def answering(script):
    """A server of one connection at a time, which writes what the script says."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    script(connection)
                except OSError:
                    continue

    threading.Thread(target=serve, daemon=True).start()
    return server, f"http://127.0.0.1:{server.getsockname()[1]}/"


def dripping(text, before=b""):
    def script(connection):
        connection.sendall(before)
        for _ in range(200):
            connection.sendall(text)
            time.sleep(0.1)

    return script


@pytest.mark.parametrize(
    "script",
    [
        dripping(b"H"),
        dripping(b"a", b"HTTP/1.1 200 OK\r\nX-A: "),
        dripping(b"HTTP/1.1 102 Processing\r\n\r\n"),
        dripping(b" ", b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"),
    ],
    ids=["status", "headers", "interim", "body"],
)
def test_the_time_limit_is_on_the_whole_request(script):
    server, url = answering(script)
    with server, pytest.raises(SolveTimeoutError, match=r"gave no answer within timeout_s=0\.5"):
        HTTPService(url, timeout_s=0.5, retries=0)({"a": 1.0})


def test_a_compressed_answer_is_refused_before_it_is_unpacked():
    bomb = gzip.compress(gzip.compress(b"0" * 10_000_000))

    def script(connection):
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(bomb) + bomb)

    server, url = answering(script)
    with server, pytest.raises(SolveError, match=r"compressed answer \(gzip, gzip\), which was"):
        HTTPService(url, retries=0)({"a": 1.0})
