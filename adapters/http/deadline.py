"""A limit on a whole request: httpx's own are on each read, which a slow server begins anew."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zo_bilevel.support.errors import SolveError

_thread = threading.local()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """All that this thread reads and writes in the block ends after so many seconds.

    Example:
        >>> with deadline(5.0):
        ...     left_of(60.0) <= 5.0
        True
    """
    _thread.until = time.monotonic() + seconds
    try:
        yield
    finally:
        _thread.until = None


def left_of(timeout: float | None) -> float | None:
    """A time limit, or what is left until the deadline where that is less; 0 when it is over."""
    until: float | None = getattr(_thread, "until", None)
    if until is None:
        return timeout
    left = max(until - time.monotonic(), 0.0)
    return left if timeout is None else min(timeout, left)


def raw_chunks(response: Any) -> Iterator[bytes]:  # noqa: ANN401 - an httpx response
    """The body as it is sent; a compressed one is refused, since unpacking knows no bounds."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise SolveError(f"gave a compressed answer ({encoding[:40]}), which was not asked for")
    yield from response.iter_raw()


def obey_deadlines(client: Any) -> None:  # noqa: ANN401 - an httpx client
    """Make every connection of a client obey `deadline`.

    httpx hands its transports no network backend of the caller's, so theirs is wrapped in place;
    proxies from the environment keep working.
    """
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _backend_around(pool._network_backend)


def _backend_around(backend: Any) -> Any:  # noqa: ANN401, C901 - two small classes of httpcore
    import httpcore

    def checked(timeout: float | None) -> float | None:
        left = left_of(timeout)
        if left == 0.0:
            raise httpcore.ReadTimeout("the time of the whole request is over")
        return left

    class Stream(httpcore.NetworkStream):
        def __init__(self, inner: Any) -> None:  # noqa: ANN401
            self._inner = inner

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            data: bytes = self._inner.read(max_bytes, checked(timeout))
            return data

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self._inner.write(buffer, checked(timeout))

        def close(self) -> None:
            self._inner.close()

        def start_tls(self, *args: Any, timeout: Any = None, **named: Any) -> Any:  # noqa: ANN401
            return Stream(self._inner.start_tls(*args, timeout=checked(timeout), **named))

        def get_extra_info(self, info: str) -> Any:  # noqa: ANN401
            return self._inner.get_extra_info(info)

    class Backend(httpcore.NetworkBackend):
        def connect_tcp(self, *args: Any, timeout: Any = None, **named: Any) -> Any:  # noqa: ANN401
            return Stream(backend.connect_tcp(*args, timeout=checked(timeout), **named))

        def sleep(self, seconds: float) -> None:
            backend.sleep(seconds)

    return Backend()
