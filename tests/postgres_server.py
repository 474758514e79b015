"""A real PostgreSQL server on loopback, where its programs are installed."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from tempfile import TemporaryDirectory

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

    def stop(self):
        self._run(*self._control, "-m", "immediate", "stop")

    def restart(self):
        self.stop()
        self.start()

    def database(self, name):
        """Address of an empty database."""
        import psycopg

        name = f"d{abs(hash(name))}"
        with psycopg.connect(f"{self.address}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{self.address}/{name}"


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
