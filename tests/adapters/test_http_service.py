"""HTTPService against a real server on 127.0.0.1: answers, refusals, retries, limits, secrets."""

from __future__ import annotations

import json
import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zo_bilevel as zb
from zo_bilevel.adapters import HTTPService
from zo_bilevel.adapters.http import connection
from zo_bilevel.solve.dispatch.base import takes_seed
from zo_bilevel.support.errors import InputError, MissingPackageError, SolveError, SolveTimeoutError

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("tenacity", reason="tenacity is not installed")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.seen.append((body, dict(self.headers)))
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
            plan = self.server.plan.pop(0) if self.server.plan else self.server.default
        try:
            status, headers, answer = plan(body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)
        except ConnectionError:
            pass
        finally:
            with self.server.lock:
                self.server.running -= 1

    def log_message(self, *_):
        pass


def reply(document, status=200, headers=None, delay_s=0.0):
    def plan(_):
        time.sleep(delay_s)
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        return status, headers or {}, text

    return plan


def echo(body):
    return 200, {}, json.dumps({"got": json.loads(body), "u": [1.0]}).encode()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(connection, "FIRST_WAIT_S", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.lock, server.seen, server.plan = threading.Lock(), [], []
    server.running = server.most = 0
    server.default = reply({"result": {"u": [1, 2.5], "s": 3}})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/solve"
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def service(server):
    made = []

    def make(**options):
        made.append(HTTPService(options.pop("url", server.url), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_parameters_are_posted_as_json_and_theta_is_found_by_its_path(server, service):
    solver = service(theta="result.u")
    phi = {"nu": 0.1 + 0.2, "f": np.array([1.0, 1e308]), "k": 3, "kind": "a'b"}
    np.testing.assert_array_equal(solver(phi), [1.0, 2.5])
    body, headers = server.seen[0]
    assert json.loads(body) == {"nu": 0.1 + 0.2, "f": [1.0, 1e308], "k": 3, "kind": "a'b"}
    assert headers["Content-Type"] == "application/json"
    both = service(theta="result")(phi)
    assert sorted(both) == ["s", "u"]
    copy = pickle.loads(pickle.dumps(solver))
    np.testing.assert_array_equal(copy(phi), [1.0, 2.5])
    copy.close()


def test_a_body_places_values_and_is_checked_against_the_space(server, service):
    space = zb.Space(a=zb.Real(0, 1), b=zb.Real(0, 1, shape=(2,)))
    body = {"model": "x", "inputs": [{"name": "a", "value": "{a}"}, "{b}"], "seed": "{seed}"}
    solver = service(body=body, theta="result.s")
    assert takes_seed(solver)
    assert not takes_seed(service())
    zb.Problem(space, solver)
    solver({"a": 0.5, "b": np.ones(2)}, seed=11)
    expected = [{"name": "a", "value": 0.5}, [1.0, 1.0]]
    assert json.loads(server.seen[0][0]) == {"model": "x", "inputs": expected, "seed": 11}
    with pytest.raises(InputError, match="field of body: 'aa'; did you mean 'a'"):
        zb.Problem(space, service(body=["{aa}", "{b}"]))
    with pytest.raises(InputError, match="parameters without effect: b"):
        zb.Problem(space, service(body=["{a}"]))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (reply({"result": {"w": 1}}), "no 'u' of 'result.u' in an object with 'w'"),
        (reply(b"<html>oops"), "no JSON: '<html>oops'"),
        (reply({"error": "bad nu"}, status=422), "status 422: .*bad nu"),
        (reply({}, status=500), "status 500"),
        (reply({}, status=307, headers={"Location": "http://127.0.0.1:1/"}), "status 307"),
        (reply({"result": {"u": [[1, 2], [3]]}}), "holds no numbers"),
    ],
)
def test_a_bad_answer_is_one_failed_solve_and_is_not_asked_for_again(
    server, service, plan, message
):
    server.default = plan
    with pytest.raises(SolveError, match=message):
        service(theta="result.u")({"nu": 1.0})
    assert len(server.seen) == 1


def test_not_a_number_in_an_answer_is_invalid(server, service):
    server.default = reply(b'{"u": [1, NaN]}')
    assert np.isnan(service(theta="u")({"nu": 1.0})[1])


def test_a_busy_service_is_asked_again_as_it_wishes(server, service):
    server.plan = [reply({}, 503), reply({}, 429, {"Retry-After": "1"})]
    started = time.perf_counter()
    np.testing.assert_array_equal(service(theta="result.u")({"nu": 1.0}), [1, 2.5])
    assert len(server.seen) == 3
    assert time.perf_counter() - started > 0.9
    server.default = reply({}, 503)
    with pytest.raises(SolveError, match=r"answered with status 503: '\{\}' \(2 attempts\)"):
        service(retries=1)({"nu": 1.0})


def test_a_service_that_is_not_there_or_hangs_up_is_a_failed_solve(service):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        with pytest.raises(SolveError, match=r"could not be reached: .* \(2 attempts\)"):
            service(url=url, retries=1)({"nu": 1.0})


def test_a_slow_service_is_a_timeout_and_is_not_asked_again(server, service):
    server.default = reply({}, delay_s=2.5)
    with pytest.raises(SolveTimeoutError, match="no answer within timeout_s=1"):
        service(timeout_s=1.0)({"nu": 1.0})
    assert len(server.seen) == 1


def test_an_answer_without_end_is_cut_off(server, service, monkeypatch):
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1000)
    server.default = reply(b" " * 5000)
    with pytest.raises(SolveError, match="more than 1000 bytes"):
        service()({"nu": 1.0})


def test_no_more_requests_at_once_than_allowed(server, service):
    server.default = reply({"u": 1}, delay_s=0.05)
    solver = service(theta="u", max_concurrent=3)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda k: solver({"a": float(k)}), range(18)))
    assert server.most == 3


def test_secrets_appear_in_no_message(server, service):
    server.default = lambda body: (401, {}, b"unknown token s3cret-token for user:pa55word")
    url = server.url.replace("127", "user:pa55word@127") + "?key=quer7key"
    solver = service(url=url, headers={"X-Key": "Token s3cret-token"})
    with pytest.raises(SolveError, match="status 401") as caught:
        solver({"nu": 1.0})
    name = zb.Problem(zb.Space(nu=zb.Real(0, 1)), solver).name
    for text in (str(caught.value), repr(solver), name):
        assert not any(secret in text for secret in ("s3cret", "pa55", "quer7"))
    assert server.seen[0][1]["X-Key"] == "Token s3cret-token"
    with pytest.raises(InputError, match="url must begin with http") as caught:
        HTTPService("ftp://user:pa55word@host/?key=quer7key")
    assert not any(secret in str(caught.value) for secret in ("pa55", "quer7"))
    with pytest.raises(InputError, match="'Authorization' is not"):
        HTTPService("http://host/", headers={"Authorization": "a\nb"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "solver"}, "url must begin with http"),
        ({"url": "http://host:99999/"}, "url is no address"),
        ({"timeout_s": 0}, "timeout_s must be finite and > 0, got 0"),
        ({"retries": -1}, "retries must be a whole number >= 0"),
        ({"max_concurrent": 0}, "max_concurrent must be a whole number >= 1"),
        ({"body": {"a": object()}}, "body must be a JSON value"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        HTTPService(**{"url": "http://127.0.0.1/", **options})


def test_a_missing_package_names_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(MissingPackageError, match=r'tenacity: pip install "zo-bilevel\[http\]"'):
        HTTPService("http://127.0.0.1/")


texts = st.text(max_size=30) | st.sampled_from(["", "{a}", "{seed}", '"', "\\", "\0", "$(x)"])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=texts, value=st.floats(allow_nan=False, allow_infinity=False))
def test_any_value_arrives_as_it_is(server, service, text, value):
    server.default = echo
    phi = {"text": text, "value": value}
    solver = service(theta="u", body={"x": ["{text}", "{value}"], "fixed": "{text} "})
    np.testing.assert_array_equal(solver(phi), [1.0])
    solver.close()
    assert json.loads(server.seen[-1][0]) == {"x": [text, value], "fixed": "{text} "}
