"""A live page about a store, served on this machine: read-only, renewed as solves arrive."""

import hashlib
import hmac
import ipaddress
import os
import time
from pathlib import Path
from typing import Any

from zo_bilevel.comparison.stored_comparison import stored_comparisons
from zo_bilevel.report.activity import activity_tables
from zo_bilevel.report.page import (
    check_report_packages,
    environment,
    plotly_script,
    render_report,
)
from zo_bilevel.store.places import open_store
from zo_bilevel.store.queue.activity import activity_of
from zo_bilevel.support.errors import InputError, MissingPackageError, StoreError

HOST, PORT = "127.0.0.1", 8765
FEWEST_TOKEN_CHARACTERS = 16
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_COOKIE = "zo_bilevel_token"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
RENEWED_S = 10.0
"""How often a page is renewed on which only the ages of solves change."""


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_binding(host: str, token: str | None) -> None:
    """Refuse to show a store to others unless asked for with a token.

    Raises:
        InputError: If the host is not loopback and there is no token, or the token is short.
    """
    if token is not None and len(token) < FEWEST_TOKEN_CHARACTERS:
        raise InputError(
            f"token must have at least {FEWEST_TOKEN_CHARACTERS} characters, got {len(token)}"
        )
    if token is None and not is_loopback(host):
        raise InputError(
            f"host {host!r} would show the store to other machines: give --token, which visitors "
            "must then know, or leave --host away"
        )


def stamp_of(path: str | os.PathLike[str]) -> str:
    """What tells one state of a store from the next.

    Raises:
        InputError: If it does not exist.
        StoreError: If it is no store.
    """
    with open_store(path, read_only=True) as store:
        found, tick = activity_of(store), ""
        if found is not None and found.solves:
            tick = f"{time.time() // RENEWED_S}"
        counts = None if found is None else (len(found.solves), found.waiting, found.workers)
        state = f"{store.stamp()} {counts} {tick}"
        return hashlib.sha256(state.encode()).hexdigest()[:16]


def live_page(path: str | os.PathLike[str]) -> str:
    """The report of everything in a store, as it stands.

    Returns:
        HTML; a page that waits while there is no solve.
    """
    stamp = stamp_of(path)
    with open_store(path, read_only=True) as store:
        comparisons = stored_comparisons(store, is_live=True) if store.records() else []
        activity = activity_tables(store)
    if not any(run.solves for comparison in comparisons for run in comparison.runs):
        page: str = environment().get_template("waiting.html").render(activity=activity)
        return page
    return render_report(comparisons, title=Path(path).name, live=stamp, activity=activity)


def make_app(path: str | os.PathLike[str], token: str | None = None) -> Any:  # noqa: ANN401 - Starlette
    """The web application: `/`, `/stamp`, `/plotly.js`, all read-only.

    Args:
        path: The store file; it must exist.
        token: What visitors must know: `/?token=...` once, then a cookie.

    Raises:
        InputError: If the store does not exist.
        StoreError: If it is no store.
        MissingPackageError: If a package is missing.
    """
    starlette = _starlette()
    store = os.fspath(path)
    stamp_of(store)
    script = plotly_script()
    check_report_packages()

    def answer(text: str, kind: str) -> Any:  # noqa: ANN401 - a response
        return starlette.Response(text, media_type=kind, headers=_HEADERS)

    def guarded(make: Any) -> Any:  # noqa: ANN401 - an endpoint
        def endpoint(request: Any) -> Any:  # noqa: ANN401
            if not _is_known(request, token):
                return starlette.Response("a token is needed: /?token=...", 401, _HEADERS)
            try:
                text, kind = make()
            except (InputError, StoreError) as error:
                return starlette.Response(str(error), 503, _HEADERS)
            response = answer(text, kind)
            if token is not None:
                response.set_cookie(_COOKIE, token, httponly=True, samesite="strict")
            return response

        return endpoint

    pages = {
        "/": lambda: (live_page(store), "text/html"),
        "/stamp": lambda: (stamp_of(store), "text/plain"),
        "/plotly.js": lambda: (script, "text/javascript"),
    }
    routes = [starlette.Route(place, guarded(make)) for place, make in pages.items()]
    # a page elsewhere must not reach this one by a name of its own for 127.0.0.1
    hosts = ["*"] if token is not None else list(LOOPBACK_NAMES)
    middleware = [starlette.Middleware(starlette.TrustedHostMiddleware, allowed_hosts=hosts)]
    return starlette.Starlette(routes=routes, middleware=middleware)


def _is_known(request: Any, token: str | None) -> bool:  # noqa: ANN401 - a request
    if token is None:
        return True
    given = request.query_params.get("token") or request.cookies.get(_COOKIE) or ""
    return hmac.compare_digest(given.encode(), token.encode())


class _Parts:
    """What is needed of starlette."""

    def __init__(self) -> None:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import Response
        from starlette.routing import Route

        self.Starlette, self.Middleware, self.Route = Starlette, Middleware, Route
        self.TrustedHostMiddleware, self.Response = TrustedHostMiddleware, Response


def _starlette() -> Any:  # noqa: ANN401 - of an optional package
    try:
        import uvicorn  # noqa: F401 - only asked whether it is there

        return _Parts()
    except ImportError as error:
        raise MissingPackageError(
            f'watch needs starlette and uvicorn: pip install "zo-bilevel[report]" ({error})'
        ) from error


def serve(
    path: str | os.PathLike[str],
    *,
    host: str = HOST,
    port: int = PORT,
    token: str | None = None,
    say: Any = print,  # noqa: ANN401 - any function of a text
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        path: The store file.
        host: Where to serve; only this machine unless there is a token.
        port: 0 takes a free one.
        token: What visitors must know.
        say: Told the address once the page is there.

    Raises:
        InputError: If the binding is refused, the port is taken, or the store does not exist.
        StoreError: If it is no store.
        MissingPackageError: If a package is missing.
    """
    check_binding(host, token)
    app = make_app(path, token)
    import socket

    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot serve at {host} port {port}: {error.strerror}") from error
    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{listener.getsockname()[1]}/{'?token=...' if token else ''}")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run(sockets=[listener])
