"""Posts to a service and reads its answer: limits in time, size and number, and retries."""

from collections.abc import Mapping
from typing import Any, final

from zo_bilevel.adapters.http.deadline import deadline, raw_chunks
from zo_bilevel.adapters.http.pool import HTTPPool
from zo_bilevel.adapters.http.retry_after import retry_after
from zo_bilevel.support.errors import SolveError, SolveTimeoutError

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
MAX_WAIT_S = 30.0
FIRST_WAIT_S = 0.5
MAX_ANSWER_BYTES = 1 << 28
SHOWN_CHARACTERS = 200


class _BusyError(Exception):
    """The service asks to be tried again, or could not be reached."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


@final
class Connection:
    """This process's connections to a service; a copy in another process makes its own.

    Args:
        timeout_s: Seconds one attempt may take.
        max_concurrent: Requests at once.
    """

    def __init__(self, timeout_s: float, max_concurrent: int) -> None:
        self.timeout_s = timeout_s
        self._pool = HTTPPool(timeout_s, max_concurrent)

    def ask(self, url: str, content: bytes, headers: Mapping[str, str], retries: int) -> bytes:
        """Post, with retries where that can help; `SolveError` if there is none."""
        import tenacity

        exponential = tenacity.wait_exponential(multiplier=FIRST_WAIT_S, max=MAX_WAIT_S)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait_s if isinstance(error, _BusyError) else 0.0
            return min(max(asked, exponential(state)), MAX_WAIT_S)

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1),
            wait=wait,
            retry=tenacity.retry_if_exception_type(_BusyError),
            reraise=True,
        )
        try:
            with self._pool.places():
                answer: bytes = retrying(self._attempt, url, content, headers)
                return answer
        except _BusyError as error:
            raise SolveError(f"{error} ({retries + 1} attempts)") from error

    def _attempt(self, url: str, content: bytes, headers: Mapping[str, str]) -> bytes:
        import httpx

        own = {"Content-Type": "application/json", "Accept": "application/json"}
        all_headers = {**own, **headers, "Accept-Encoding": "identity"}
        try:
            with (
                deadline(self.timeout_s),
                self._pool.client().stream(
                    "POST", url, content=content, headers=all_headers
                ) as response,
            ):
                answer = _read(response)
                _check_status(response, answer)
                return answer
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise _BusyError(f"could not be reached: {error}") from error
        except httpx.TimeoutException as error:
            text = f"gave no answer within timeout_s={self.timeout_s:g}"
            raise SolveTimeoutError(text) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SolveError(f"could not be asked: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()


def _read(response: Any) -> bytes:  # noqa: ANN401 - an httpx response
    """Read an answer that must be within bounds."""
    answer = bytearray()
    for chunk in raw_chunks(response):
        answer += chunk
        if len(answer) > MAX_ANSWER_BYTES:
            raise SolveError(f"gave an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def _check_status(response: Any, answer: bytes) -> None:  # noqa: ANN401 - an httpx response
    if response.is_success:
        return
    text = answer[:SHOWN_CHARACTERS].decode(errors="replace").strip()
    what = f"answered with status {response.status_code}: {text!r}"
    if response.status_code in RETRIED_STATUSES:
        raise _BusyError(what, retry_after(response.headers.get("Retry-After", "")))
    raise SolveError(what)
