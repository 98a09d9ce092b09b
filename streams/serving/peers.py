"""Questions that another worker has the answer to: forwarded to it, body and all, one hop."""

from typing import Any

import aiohttp
from thalweg.streams.serving.problems import Reply, unavailable

FORWARDED = "Thalweg-Forwarded"
"""A header of questions that were forwarded: they are not forwarded again."""
KEPT = ("Retry-After", "Thalweg-Origin", "WWW-Authenticate", "Allow")
CONNECTIONS_MAX = 64


class Peers:
    """The other workers of the group."""

    def __init__(self, timeout_s: float) -> None:
        """Wait so long for each; connect when something is forwarded."""
        self._timeout = aiohttp.ClientTimeout(total=timeout_s * 0.9, connect=timeout_s / 4)
        self._session: aiohttp.ClientSession | None = None

    async def forward(self, url: str, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        """Return the reply of the worker at a URL. Raises ProblemError where it gives none."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, limit_per_host=CONNECTIONS_MAX)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, auto_decompress=False)
        sent: dict[str, Any] = {**headers, FORWARDED: "1"}
        if body:
            sent["Content-Type"] = "application/json"
        try:
            # what is asked is read-only, so that it may be asked again on a new connection
            async with self._session.request(
                method, url.rstrip("/") + target, data=body or None, headers=sent, allow_redirects=False
            ) as answer:
                kept = tuple((name, answer.headers[name]) for name in KEPT if name in answer.headers)
                return Reply(answer.status, await answer.read(), answer.headers.get("Content-Type", ""), kept)
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise unavailable("the worker that has the user does not answer") from None

    async def close(self) -> None:
        """Disconnect."""
        if self._session is not None:
            await self._session.close()
