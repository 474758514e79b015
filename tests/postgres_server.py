"""A real PostgreSQL server on loopback, where its programs are installed."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest

PROGRAMS = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1:]
USER = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []


def program(name):
    return shutil.which(name, path=os.pathsep.join([*PROGRAMS, os.environ["PATH"]]))


class Server:
    """A server without databases of ours."""

    def __init__(self, folder):
        if USER:
            shutil.chown(folder, "postgres")
        data = f"{folder}/data"
        self._run("initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.address = f"postgresql://tester@127.0.0.1:{port}"
        self._control = ["pg_ctl", "-D", data, "-w", "-l", f"{data}/log"]
        self._options = f"-c listen_addresses=127.0.0.1 -p {port} -k {data} -c fsync=off"

    def _run(self, name, *words):
        command = [*USER, program(name), *words]
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    def start(self):
        self._run(*self._control, "-o", self._options, "start")

    def stop(self, mode="immediate"):
        self._run(*self._control, "-m", mode, "stop")

    def restart(self, mode="immediate"):
        self.stop(mode)
        self.start()

    def database(self, name):
        """Address of an empty database."""
        import psycopg

        name = f"d{abs(hash(name))}"
        with psycopg.connect(f"{self.address}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{self.address}/{name}"


class Proxy:
    """Between a database and its users; breaks one connection as it answers its `number`-th commit.

    That commit was made, and whoever asked for it cannot know.
    """

    def __init__(self, address, number):
        self._real, self._number = urlsplit(address), number
        self.commits, self._is_due = 0, False

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.address = f"postgresql://tester@127.0.0.1:{port}{self._real.path}"
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self):
        with suppress(OSError):
            for _ in range(10):
                client = self._listener.accept()[0]
                there = socket.create_connection((self._real.hostname, self._real.port))
                ways = ((client, there, self._asked), (there, client, self._answered))
                for way in ways:
                    threading.Thread(target=self._pump, args=way, daemon=True).start()

    def _asked(self, data):
        self.commits += b"COMMIT" in data
        self._is_due = self._is_due or (b"COMMIT" in data and self.commits == self._number)
        return True

    def _answered(self, data):
        is_due, self._is_due = self._is_due, False
        return not is_due

    def _pump(self, source, target, passes):
        with suppress(OSError):
            while (data := source.recv(65536)) and passes(data):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()


@contextmanager
def running():
    """A server that is gone at the end; the tests are skipped where there is none."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    if program("initdb") is None or program("postgres") is None:
        pytest.skip("no PostgreSQL server is installed")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # pytest's own is root's alone
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
