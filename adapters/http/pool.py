"""One process's connections to a service; a copy in another process makes its own."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, final

from zo_bilevel.adapters.http.deadline import obey_deadlines


@final
class HTTPPool:
    """An httpx client made on first use, and the places of the requests that may run at once.

    Args:
        timeout_s: Seconds one attempt may take, > 0.
        max_concurrent: Requests at once, >= 1.

    Example:
        >>> pool = HTTPPool(1.0, 2)
        >>> with pool.places():
        ...     client = pool.client()
        >>> pool.close()
    """

    def __init__(self, timeout_s: float, max_concurrent: int) -> None:
        self.timeout_s, self.max_concurrent = timeout_s, max_concurrent
        self._forget()

    def __reduce__(self) -> tuple[type[HTTPPool], tuple[float, int]]:
        return HTTPPool, (self.timeout_s, self.max_concurrent)

    def _forget(self) -> None:
        self._client: Any = None
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(self.max_concurrent)

    def places(self) -> threading.BoundedSemaphore:
        """To be held during a request; after a fork, those of this process."""
        if self._owner != os.getpid():
            self._forget()
        return self._places

    def client(self) -> Any:  # noqa: ANN401 - an httpx client
        """The client of this process."""
        import httpx

        with self._lock:
            if self._client is None:
                limits = httpx.Limits(max_connections=self.max_concurrent)
                self._client = httpx.Client(timeout=self.timeout_s, limits=limits)
                obey_deadlines(self._client)
                weakref.finalize(self, _close, self._client, self._owner)
            return self._client

    def close(self) -> None:
        """Close idle connections; the pool may be used again afterwards."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            _close(client, self._owner)


def _close(client: Any, owner: int) -> None:  # noqa: ANN401 - an httpx client
    """Close connections, unless they are those of a parent process."""
    if owner == os.getpid():
        client.close()
