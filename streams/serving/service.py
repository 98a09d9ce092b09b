"""What is answered over HTTP: by the partition that owns the user, here or on the worker that has it."""

import asyncio
import hmac
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from aiohttp import web
from thalweg.operators.configuration import Configuration
from thalweg.operators.machine.hashing import partition_of
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.streams.configuration.loading import HttpSection
from thalweg.streams.partition.knowledge import item_known, user_known
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.questions import request_of
from thalweg.streams.partition.turns import BusyError
from thalweg.streams.serving.openapi import document
from thalweg.streams.serving.page import PAGE, PAGE_HEADERS
from thalweg.streams.serving.peers import FORWARDED, Peers
from thalweg.streams.serving.problems import ProblemError, Reply, refused, unavailable

AT_ONCE_S = 0.002
"""So long a question may hold the server up; one that waits longer for the fold waits in a thread."""
OPEN_PATHS = ("/ui", "/openapi.json")
"""Paths without a user's data: they ask for no token."""
LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|\[::1\]|::1", re.IGNORECASE)
QUERY_MAX = 16
Answer = TypeVar("Answer")


class Worker(Protocol):
    """What is asked of the worker that a service belongs to."""

    @property
    def partitions(self) -> int:
        """How many partitions the input has."""

    def opened(self) -> dict[int, Partition]:
        """Return the partitions that this worker has open."""

    def url_of(self, partition: int) -> str | None:
        """Return the URL of the other worker that the group gave a partition; None where there is none."""

    async def append(self, partition: int, key: bytes, record: bytes) -> int:
        """Append a record to the input and return its offset. Raises OSError where the brokers do not take it."""

    async def close(self) -> None:
        """Disconnect."""


class Asked(NamedTuple):
    """A question as it came: `argument` is the end of its path, `target` path and query as they were written."""

    method: str
    target: str
    argument: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Route(NamedTuple):
    """A method, a path that may end in an argument, and what answers."""

    method: str
    path: str
    answer: Callable[[Asked], Awaitable[Reply]]


class Service:
    """Answers questions, each by the partition that owns its user."""

    def __init__(self, section: HttpSection, configuration: Configuration, worker: Worker, token: str = "") -> None:
        """Answer for a worker; `token`: what a client must send, none where it is empty."""
        self._section, self._configuration, self._worker = section, configuration, worker
        self._authorization = f"Bearer {token}".encode() if token else b""
        self._peers = Peers(section.timeout_ms / 1000)
        self.answered: dict[tuple[str, int], int] = {}
        """How many requests were answered, by route and status; those without a route have an empty one."""
        self.routes = (
            Route("POST", "/rank", self._rank),
            Route("POST", "/score", self._score),
            Route("GET", "/users/{id}", self._user),
            Route("GET", "/items/{id}", self._item),
            Route("GET", "/openapi.json", self._openapi),
            Route("GET", "/ui", self._ui),
        )

    async def close(self) -> None:
        """Disconnect from other workers and from the brokers."""
        await self._peers.close()
        await self._worker.close()

    async def answer(self, request: web.BaseRequest) -> Reply:
        """Return the reply to a request: a problem document where it has no other."""
        route: Route | None = None
        try:
            self._refuse_host(request)
            path, query = parts_of(request.raw_path)
            route, argument = self._route(request.method, path)
            reply = await self._answer(request, route, argument, query)
        except ProblemError as problem:
            reply = problem.reply
        except Unusable as unusable:
            reply = refused(unusable).reply
        except BusyError as busy:
            reply = unavailable(busy.message, busy.retry_after_s).reply
        key = "" if route is None else route.path, reply.status
        self.answered[key] = self.answered.get(key, 0) + 1
        return reply

    async def _answer(self, request: web.BaseRequest, route: Route, argument: str, query: str) -> Reply:
        """Return the reply of a route. Raises ProblemError, Unusable or BusyError where it has none."""
        if route.path not in OPEN_PATHS:
            self._refuse_stranger(request)
        body = await self._body(request) if route.method == "POST" else b""
        headers = {name: request.headers[name] for name in ("Authorization", FORWARDED) if name in request.headers}
        return await route.answer(Asked(request.method, request.raw_path, argument, query_of(query), headers, body))

    async def _rank(self, asked: Asked) -> Reply:
        """Rank a request's candidates."""
        return await self._of_request(asked, is_ordered=True)

    async def _score(self, asked: Asked) -> Reply:
        """Score a request's candidates, in their order."""
        return await self._of_request(asked, is_ordered=False)

    async def _user(self, asked: Asked) -> Reply:
        """Report what is known of a user."""
        found = await self._owner(asked, asked.argument)
        if isinstance(found, Reply):
            return found
        known = await self._at_turn(found, lambda wait_s: user_known(found, asked.argument, wait_s))
        return Reply(200, known)

    async def _item(self, asked: Asked) -> Reply:
        """Report what each partition that is open here knows of an item."""
        opened = self._worker.opened()
        if not opened:
            raise unavailable("no partition is open on this worker yet")
        parts = [
            await self._at_turn(each, partial(item_known, each, asked.argument)) for _, each in sorted(opened.items())
        ]
        return Reply(200, b'{"partitions":[%s]}' % b",".join(parts))

    async def _openapi(self, asked: Asked) -> Reply:
        return Reply(200, document(has_token=bool(self._authorization)))

    async def _ui(self, asked: Asked) -> Reply:
        return Reply(200, PAGE, "text/html; charset=utf-8", PAGE_HEADERS)

    async def _of_request(self, asked: Asked, *, is_ordered: bool) -> Reply:
        is_logged = flag_of(asked.query, "log")
        request, record = request_of(asked.body, self._configuration, time.time_ns() // 1_000_000)
        if request.shown is not None and is_ordered and not is_logged:
            detail = "shown needs ?log=true: a question itself changes nothing, its record shows what it names"
            raise ProblemError(400, detail, reason=Reason.BAD_OPTION)
        found = await self._owner(asked, request.user)
        if isinstance(found, Reply):
            return found
        partition = found
        body = await self._at_turn(
            partition, lambda wait_s: partition.answer(request, is_ordered=is_ordered, timeout_s=wait_s)
        )
        if not is_logged:
            return Reply(200, body)
        try:
            offset = await self._worker.append(partition.partition, request.user.encode(), record)
        except OSError as error:
            raise unavailable(str(error)) from None
        origin = f"{partition.topic}-{partition.partition}-{offset}"
        return Reply(200, body, headers=(("Thalweg-Origin", origin),))

    async def _owner(self, asked: Asked, user: str) -> Partition | Reply:
        """Return the partition that has a user, or the reply of the worker that has it."""
        partitions = self._worker.partitions
        number = partition_of(user.encode(), partitions)
        partition = self._worker.opened().get(number)
        if partition is not None:
            return partition
        url = self._worker.url_of(number)
        if url is None or FORWARDED in asked.headers:
            raise unavailable(f"partition {number}, which has the user, is being opened")
        return await self._peers.forward(url, asked.method, asked.target, asked.headers, asked.body)

    async def _at_turn(self, partition: Partition, ask: Callable[[float], Answer]) -> Answer:
        """Return what a question to a partition gives: at once, or from a thread where it has to wait for the fold."""
        partition.turns.share_max = self._section.fold_share_max
        try:
            return ask(AT_ONCE_S)
        except BusyError as busy:
            if not busy.is_waiting:
                raise
        return await asyncio.to_thread(ask, self._section.timeout_ms / 2_000)

    def _route(self, method: str, path: str) -> tuple[Route, str]:
        """Return the route of a path and the argument in it. Raises ProblemError where there is none."""
        found = [(route, argument) for route in self.routes if (argument := argument_of(route.path, path)) is not None]
        for route, argument in found:
            if route.method == method:
                return route, argument
        if found:
            allowed = ", ".join(sorted({route.method for route, _ in found}))
            raise ProblemError(405, f"{method} is not possible here", headers=(("Allow", allowed),))
        raise ProblemError(404, f"here are {', '.join(route.path for route in self.routes)}")

    def _refuse_host(self, request: web.BaseRequest) -> None:
        """Raise ProblemError where a page of another site might have led a browser here: its name is not ours."""
        if self._authorization:
            return
        host = re.sub(r":\d+$", "", request.headers.get("Host", ""))
        ours = {self._section.host, urlsplit(self._section.advertised_url).hostname or ""}
        if host and not LOOPBACK.fullmatch(host) and host not in ours:
            raise ProblemError(421, "without http.token_file only the names of this machine itself are answered")

    def _refuse_stranger(self, request: web.BaseRequest) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = f"{scheme.title()} {token.strip()}".encode(errors="replace")
        if self._authorization and not hmac.compare_digest(given, self._authorization):
            detail = "send the token of http.token_file: Authorization: Bearer TOKEN"
            raise ProblemError(401, detail, headers=(("WWW-Authenticate", "Bearer"),))

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Return a body of JSON. Raises ProblemError where it is none, or too large."""
        if request.content_type != "application/json":
            raise ProblemError(415, "send the header Content-Type: application/json")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise ProblemError(415, "send the body as it is, without Content-Encoding")
        size_max = self._configuration.limits.record_bytes
        body = bytearray()
        if (request.content_length or 0) <= size_max:
            await self._expected(request)
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > size_max:
                    break
            else:
                return bytes(body)
        detail = f"the body has more than {size_max} bytes (limits.record_bytes)"
        raise ProblemError(413, detail, reason=Reason.TOO_LARGE, headers=(("Connection", "close"),))

    async def _expected(self, request: web.BaseRequest) -> None:
        """Tell a client that waits for it to send its body. Raises ProblemError where it expects something else."""
        expected = request.headers.get("Expect")
        if expected is None:
            return
        if expected.lower() != "100-continue":
            raise ProblemError(417, "the only Expect that is known is 100-continue")
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # else the answer is taken for begun


def parts_of(target: str) -> tuple[str, str]:
    """Return path and query of what was asked for. Raises ProblemError where it is no URL."""
    try:
        parts = urlsplit(target)
    except ValueError:
        raise ProblemError(400, "what was asked for is no URL") from None
    return parts.path, parts.query


def argument_of(route: str, path: str) -> str | None:
    """Return the argument of a path, empty where its route has none; None where it is another route's.

    Raises ProblemError where it is not UTF-8.

    >>> argument_of("/users/{id}", "/users/a%2Fb"), argument_of("/ui", "/ui"), argument_of("/ui", "/rank")
    ('a/b', '', None)
    """
    if not route.endswith("{id}"):
        return "" if route == path else None
    prefix = route.removesuffix("{id}")
    rest = path.removeprefix(prefix)
    if not path.startswith(prefix) or not rest or "/" in rest:
        return None
    try:
        return unquote(rest, errors="strict")
    except UnicodeDecodeError:
        raise ProblemError(400, "the id in the path is not UTF-8") from None


def query_of(text: str) -> dict[str, str]:
    """Return the values of a query by name. Raises ProblemError where it has too many."""
    try:
        found = parse_qs(text, keep_blank_values=True, max_num_fields=QUERY_MAX)
    except ValueError:
        raise ProblemError(400, f"a query has at most {QUERY_MAX} fields") from None
    return {name: values[-1] for name, values in found.items()}


def flag_of(query: dict[str, str], name: str) -> bool:
    """Return whether a query sets a flag. Raises ProblemError for what is no flag."""
    value = query.get(name, "false")
    if value not in ("true", "false"):
        raise ProblemError(400, f"{name} is true or false")
    return value == "true"
