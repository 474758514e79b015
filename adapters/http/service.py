"""A service that solves over HTTP: parameters are posted as JSON, theta comes back as JSON."""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, final
from urllib.parse import urlsplit

import numpy as np

from zo_bilevel.adapters.command_line.json_output import theta_at
from zo_bilevel.adapters.http.connection import SHOWN_CHARACTERS, Connection
from zo_bilevel.adapters.seeding import solver_signature
from zo_bilevel.problem.space import Space
from zo_bilevel.support.arguments import finite_number, refuse_unknown, refuse_unused, whole_number
from zo_bilevel.support.errors import InputError, SolveError
from zo_bilevel.support.packages import import_optional
from zo_bilevel.support.redaction import hide

SEED_FIELD = "{seed}"


@final
class HTTPService:
    """Post the parameters to a URL for every solve and read theta from the JSON answer.

    Args:
        url: `http://` or `https://` address. Redirects are not followed.
        theta: Dotted path to theta in the answer ("result.fields.0"); empty for all of it.
        body: What is posted: a JSON value in which a text that is exactly "{name}" stands for the
            value of that parameter, and "{seed}" for the solve's seed. Default: an object of all
            parameters. Arrays are posted as lists.
        headers: Further headers; their values are hidden from messages and stores.
        timeout_s: Seconds one attempt may take, > 0.
        retries: Further attempts where the service cannot be reached, or answers 408, 429, 502,
            503 or 504, after growing waits or as long as it asks for (30 s at most). Answers
            that are merely slow or wrong are not asked for again.
        max_concurrent: Requests at once from this process, >= 1.

    Raises:
        InputError: If an argument breaks its rule. When a `Problem` is made: if the body has a
            field without a parameter, or a parameter is in no field.
        MissingPackageError: If httpx or tenacity is not installed.

    Example:
        >>> service = HTTPService("http://127.0.0.1:8000/solve", theta="result.u", retries=0)
        >>> service.json_body({"nu": 0.1, "field": np.ones(2)})
        {'nu': 0.1, 'field': [1.0, 1.0]}
    """

    def __init__(
        self,
        url: str,
        *,
        theta: str = "",
        body: Any = None,  # noqa: ANN401 - any JSON value
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        retries: int = 2,
        max_concurrent: int = 4,
    ) -> None:
        import_optional("httpx", "HTTPService", "http")
        import_optional("tenacity", "HTTPService", "http")
        self._url = url
        self.shown_url = _shown_url(url)
        self.theta = theta
        self.body = body
        self.timeout_s, self.retries, self.max_concurrent = timeout_s, retries, max_concurrent
        self._headers = dict(headers or {})
        self._check_arguments()
        self._fields = frozenset() if body is None else frozenset(_fields(body))
        self.__signature__ = solver_signature(with_seed=SEED_FIELD in self._fields)
        self._connection = Connection(timeout_s, self.max_concurrent)

    def __call__(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401 - number, array or dict
        """Solve once.

        Raises:
            SolveError: If the service cannot be reached, refuses, or answers with no theta.
        """
        body = self.json_body(phi, seed=seed)
        try:
            try:
                content = json.dumps(body, allow_nan=False).encode()
            except (TypeError, ValueError) as error:
                raise SolveError(f"the parameters are no JSON: {error}") from error
            answer = self._connection.ask(self._url, content, self._headers, self.retries)
            try:
                document = json.loads(answer)
            except (ValueError, RecursionError) as error:
                text = answer[:SHOWN_CHARACTERS].decode(errors="replace")
                raise SolveError(f"gave unreadable output: no JSON: {text!r}") from error
            return theta_at(document, self.theta)
        except SolveError as error:
            secrets = _secrets(self._url, self._headers)
            raise type(error)(hide(f"service {self.shown_url} {error}", secrets)) from None

    def json_body(self, phi: Mapping[str, Any], *, seed: int | None = None) -> Any:  # noqa: ANN401 - any JSON value
        """What is posted for these values."""
        plain = {name: _plain(value) for name, value in phi.items()}
        if self.body is None:
            return plain
        return _filled(self.body, {"seed": seed, **plain})

    def check(self, space: Space) -> None:
        """Refuse a space that does not fit the body, before the first solve.

        Raises:
            InputError: Naming the field or parameter.
        """
        if self.body is not None:
            owner = f"HTTPService {self.shown_url}"
            names = [field[1:-1] for field in sorted(self._fields)]
            refuse_unknown(owner, "parameter in a field of body:", names, {*space.names, "seed"})
            refuse_unused(owner, space.names, names, 'no field "{name}" of body uses them')

    def close(self) -> None:
        """Close idle connections; the service may be used again afterwards."""
        self._connection.close()

    def __repr__(self) -> str:
        header_names = sorted(self._headers)
        said = f"theta={self.theta!r}, body={self.body!r}, headers={header_names}"
        return f"HTTPService({self.shown_url!r}, {said})"

    def _check_arguments(self) -> None:
        for name, value in self._headers.items():
            texts = isinstance(name, str) and isinstance(value, str)
            if not (texts and (name + value).isascii() and (name + value).isprintable()):
                raise InputError(f"headers must be printable ASCII texts, {name!r} is not")
        finite_number("timeout_s", self.timeout_s, "> 0")
        for name, least in (("retries", 0), ("max_concurrent", 1)):
            setattr(self, name, whole_number(name, getattr(self, name), least))
        try:
            json.dumps(self.body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"body must be a JSON value: {error}") from error


def _shown_url(url: object) -> str:
    """The address without passwords and queries."""
    try:
        parts = urlsplit(str(url))
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise InputError(f"url is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = re.sub(r"//[^/]*@", "//", str(url)).partition("?")[0]
        raise InputError(f"url must begin with http:// or https:// and a host, got {shown!r}")
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _secrets(url: str, headers: Mapping[str, str]) -> list[str]:
    """What a message must not show: values of headers and their parts, password, query."""
    parts = urlsplit(url)
    login = f"{parts.username or ''}:{parts.password or ''}".encode()
    words = [word for value in headers.values() for word in value.split()[1:]]  # Bearer WORD
    hidden = [base64.b64encode(login).decode(), parts.password or "", parts.query]
    return [*headers.values(), *words, *hidden]


def _plain(value: Any) -> Any:  # noqa: ANN401 - a number, array or option
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _fields(body: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    """Every text in a JSON value that is a field."""
    if isinstance(body, Mapping):
        return [field for part in body.values() for field in _fields(part)]
    if isinstance(body, list | tuple):
        return [field for part in body for field in _fields(part)]
    is_field = isinstance(body, str) and body[:1] == "{" and body[-1:] == "}" and len(body) > 2
    return [body] if is_field else []


def _filled(body: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(body, Mapping):
        return {name: _filled(part, values) for name, part in body.items()}
    if isinstance(body, list | tuple):
        return [_filled(part, values) for part in body]
    return values[body[1:-1]] if _fields(body) else body
