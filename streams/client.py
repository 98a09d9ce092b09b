"""A client of a worker's questions, for services: `Client("http://127.0.0.1:9465").rank("u1", ["v9", "v10"])`.

It needs nothing beside the standard library and msgspec. One client may be used by many threads; each has a connection.
"""

import http.client
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from thalweg.schemas.outputs import Answer, decode_answer
from thalweg.streams.printable import printable

RETRIED = (429, 502, 503, 504)
ANSWER_BYTES_MAX = 1 << 26
_decode = msgspec.json.Decoder().decode


class WorkerError(Exception):
    """A worker did not answer: `status` is that of its problem document, 0 where no worker could be reached."""

    def __init__(self, status: int, detail: str) -> None:
        """Give the status and one line."""
        super().__init__(detail)
        self.status, self.detail = status, detail


class Client:
    """Asks a worker, again after `Retry-After`.

    Parameters
    ----------
    url
        Of any worker of the group; it forwards what another one has.
    token
        What `http.token_file` of the workers holds, if they ask for one.
    timeout_s
        How long one try may take.
    deadline_s
        How long all tries may take, with the waiting between them.

    Raises ValueError where the URL is none.
    """

    def __init__(self, url: str, *, token: str = "", timeout_s: float = 1.0, deadline_s: float = 5.0) -> None:
        """Connect when something is asked; the parameters are the class's."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a worker: http://host:port")
        self._is_secure, self._place = parts.scheme == "https", (parts.hostname, parts.port)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s, self._deadline_s = timeout_s, deadline_s
        self._local = threading.local()

    def __enter__(self) -> "Client":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close this thread's connection."""
        self.close()

    def rank(
        self,
        user: str,
        candidates: Sequence[str | Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        log: bool = False,
        **options: Any,
    ) -> Answer:
        """Return a user's candidates, from the highest score down.

        `options` are further fields of a request: `top`, `exclude`, `seen`, `at_most`, `explain`, `shown`, `id`, `ts`.
        With `log` the request is also appended to the input; a try that is repeated may append it twice, with one id.
        `shown` is for that record alone, and takes nothing a second time. Feedback then names `id` and the item.

        Raises WorkerError where it is refused, or not answered in time.
        """
        return self._request("/rank", user, candidates, context, log=log, **options)

    def score(
        self,
        user: str,
        candidates: Sequence[str | Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        log: bool = False,
        **options: Any,
    ) -> Answer:
        """Return the scores of a user's candidates, in their order; otherwise as `rank`."""
        return self._request("/score", user, candidates, context, log=log, **options)

    def user(self, user: str) -> dict[str, Any]:
        """Return what is known of a user. Raises WorkerError where it is not answered in time."""
        return _decode(self.ask("GET", f"/users/{quote(user, safe='')}"))  # type: ignore[no-any-return]

    def item(self, item: str) -> dict[str, Any]:
        """Return what the asked worker's partitions know of an item. Raises WorkerError as `user` does."""
        return _decode(self.ask("GET", f"/items/{quote(item, safe='')}"))  # type: ignore[no-any-return]

    def ask(self, method: str, target: str, body: bytes | None = None) -> bytes:
        """Return the body of an answer, asking again after `Retry-After` or where none answers, until the deadline."""
        deadline = time.monotonic() + self._deadline_s
        wait_s = 0.02
        while True:
            left_s = deadline - time.monotonic()
            try:
                status, retry_after_s, answer = self._try(
                    method, target, body, max(0.001, min(self._timeout_s, left_s))
                )
            except (OSError, http.client.HTTPException) as error:
                self.close()
                status, retry_after_s, answer = 0, None, f"{type(error).__name__}: {error}".encode()
            if status == 200:
                return answer
            pause_s = wait_s * random.uniform(0.5, 1.0) if retry_after_s is None else retry_after_s
            wait_s = min(2 * wait_s, 1.0)
            if (status and status not in RETRIED) or time.monotonic() + pause_s >= deadline:
                raise WorkerError(status, _detail_of(status, answer))
            time.sleep(pause_s)

    def close(self) -> None:
        """Close this thread's connection; the next question opens another one."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _request(
        self,
        path: str,
        user: str,
        candidates: Sequence[str | Mapping[str, Any]],
        context: Mapping[str, Any] | None,
        *,
        log: bool,
        **options: Any,
    ) -> Answer:
        body = {"id": uuid.uuid4().hex, "user": user, "candidates": candidates, "context": context or {}} | options
        target = f"{path}?{urlencode({'log': 'true'})}" if log else path
        return decode_answer(self.ask("POST", target, msgspec.json.encode(body)))

    def _try(self, method: str, target: str, body: bytes | None, timeout_s: float) -> tuple[int, float | None, bytes]:
        connection = self._connection(timeout_s)
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        connection.request(method, self._prefix + target, body, headers)
        with connection.getresponse() as answer:
            found = answer.read(ANSWER_BYTES_MAX)
            after = answer.headers.get("Retry-After", "")
            return answer.status, float(after) if after.isdecimal() else None, found

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            form = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
            connection = self._local.connection = form(*self._place, timeout=timeout_s)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection


def _detail_of(status: int, answer: bytes) -> str:
    """Return one printable line of a problem document, or of what came in its place."""
    try:
        detail = str(_decode(answer)["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        detail = answer[:200].decode(errors="replace")
    return printable(detail) if status else f"no worker answers ({printable(detail)})"
