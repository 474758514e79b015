"""The page of a store, made once or served while runs go on."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from browser import open_browser, requests_of
from click.testing import CliRunner
from stored_decay import METHODS, filled_store, problem_of

import zo_bilevel as zb
from zo_bilevel.cli.main import main
from zo_bilevel.report.watch import check_binding, is_loopback, live_page, make_app, serve
from zo_bilevel.support.errors import InputError, MissingPackageError, StoreError

pytest.importorskip("starlette", reason="needs the extra report")
pytest.importorskip("uvicorn", reason="needs the extra report")

filled = pytest.fixture(filled_store)


class TestReportCommand:
    def test_a_page_of_a_store(self, filled, tmp_path):
        path = tmp_path / "found.html"
        answer = CliRunner().invoke(main, ["report", str(filled[0]), str(path), "--target", "0.01"])
        assert answer.exit_code == 0, answer.output
        assert "reached\nloss 0.01" in path.read_text()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["nowhere.sqlite", "found.html"], "store does not exist"),
            (["{store}", "found.txt"], "report must end in .html"),
            (["{store}", "found.html", "--problem", "decoy"], "is from another task"),
        ],
    )
    def test_bad_input(self, filled, tmp_path, monkeypatch, words, message):
        monkeypatch.chdir(tmp_path)
        given = [word.replace("{store}", str(filled[0])) for word in words]
        answer = CliRunner().invoke(main, ["report", *given])
        assert answer.exit_code == 2
        assert message in answer.output


class TestBinding:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.0.1"])
    def test_this_machine_needs_no_token(self, host):
        check_binding(host, None)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
    def test_others_are_refused_without_one(self, host):
        assert not is_loopback(host)
        with pytest.raises(InputError, match=f"host '{host}' would show the store to other mach"):
            check_binding(host, None)
        check_binding(host, "a-long-enough-token")

    def test_a_short_token_is_none(self):
        with pytest.raises(InputError, match="token must have at least 16 characters, got 5"):
            check_binding("0.0.0.0", "short")

    def test_the_command_line_refuses_too(self, filled):
        words = ["watch", str(filled[0]), "--host", "0.0.0.0"]
        answer = CliRunner().invoke(main, words)
        assert answer.exit_code == 2
        assert "would show the store to other machines: give --token" in answer.output

    def test_a_store_that_is_none(self, tmp_path):
        with pytest.raises(InputError, match="store does not exist"):
            make_app(tmp_path / "nothing.sqlite")
        (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be read")
        with pytest.raises(StoreError, match="damaged or no store"):
            make_app(tmp_path / "text.sqlite")

    @pytest.mark.parametrize("module", ["uvicorn", "starlette.routing", "plotly.offline"])
    def test_without_a_package_the_extra_is_named(self, filled, monkeypatch, module):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingPackageError, match=r'pip install "zo-bilevel\[report\]"'):
            make_app(filled[0])


def test_a_store_without_solves_shows_a_page_that_waits(tmp_path):
    path = tmp_path / "runs.sqlite"
    zb.Store(path).close()
    assert "No solves yet" in live_page(path)


class Server:
    """`zo-bilevel watch` in a process of its own."""

    def __init__(self, path, *words):
        command = [sys.executable, "-m", "zo_bilevel", "watch", str(path), "--port", "0", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.address = re.search(r"http://\S+?:\d+/", line).group()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()

    def get(self, place="", **headers):
        request = urllib.request.Request(self.address + place, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), dict(error.headers)


class TestServer:
    def test_pages_stamps_methods_and_foreign_names(self, filled):
        path, _ = filled
        before = path.read_bytes()
        with Server(path) as server:
            status, page, headers = server.get()
            assert status == 200
            assert "runs.sqlite" in page
            assert headers["cache-control"] == "no-store"
            stamp = server.get("stamp")[1]
            assert f'data-stamp="{stamp}"' in page
            assert server.get("stamp")[1] == stamp
            assert server.get("plotly.js")[0] == 200
            assert server.get("nothing")[0] == 404
            assert server.get(Host="evil.example")[0] == 400
            request = urllib.request.Request(server.address, data=b"x", method="POST")
            with pytest.raises(urllib.error.HTTPError, match="405"):
                urllib.request.urlopen(request)
            zb.compare(problem_of(), METHODS, max_solves=4, seeds=[7], store=path)
            assert server.get("stamp")[1] != stamp
        assert before

    def test_a_token_is_asked_for_and_kept_as_a_cookie(self, filled):
        token = "a-long-enough-token"
        with Server(filled[0], "--token", token) as server:
            assert server.get()[0] == 401
            assert server.get("?token=another-long-token")[0] == 401
            status, _, headers = server.get(f"?token={token}")
            assert status == 200
            cookie = headers["set-cookie"].split(";")[0]
            assert "HttpOnly" in headers["set-cookie"]
            assert server.get("stamp", Cookie=cookie)[0] == 200

    def test_a_port_that_is_taken_is_named(self, filled):
        with Server(filled[0]) as server:
            port = int(server.address.rstrip("/").rpartition(":")[2])
            with pytest.raises(InputError, match=f"cannot serve at 127.0.0.1 port {port}: "):
                serve(filled[0], port=port)

    def test_a_browser_sees_new_solves_arrive(self, filled, tmp_path):
        path, _ = filled
        with open_browser(tmp_path / "profile") as browser, Server(path) as server:
            browser.get(server.address)
            browser.find_element("css selector", "details.group summary").click()
            assert "seed 9" not in browser.page_source
            arguments = {"max_solves": 9, "seeds": [9], "store": path}
            adding = threading.Thread(
                target=zb.compare, args=(problem_of(), METHODS), kwargs=arguments
            )
            adding.start()
            end = time.monotonic() + 40
            while "seed 9" not in browser.page_source and time.monotonic() < end:
                time.sleep(0.3)
            adding.join()
            assert "seed 9" in browser.page_source
            script = "return document.querySelectorAll('details.group[open]').length"
            assert browser.execute_script(script) == 1  # what was open is still open
            drawn = "return document.querySelectorAll('.plot[data-drawn]').length > 0"
            while not browser.execute_script(drawn) and time.monotonic() < end:
                time.sleep(0.1)
            assert browser.execute_script(drawn)
            assert [e for e in browser.get_log("browser") if e["level"] != "INFO"] == []
            asked = {url for url in requests_of(browser) if url.startswith("http")}
            assert all(url.startswith(server.address) for url in asked)


def test_no_file_of_the_package_is_missing_for_a_report():
    folder = Path(zb.__file__).parent / "report" / "templates"
    assert {"report.html", "parts.html", "style.html", "script.html"} <= {
        path.name for path in folder.iterdir()
    }
