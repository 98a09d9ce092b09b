"""The HTTP server: a thread with an event loop, and limits on all that a client may take.

A connection has a time for each request, from its first byte to the last of the answer. One that takes longer is cut,
and so is one that is idle for long. One more than the limit takes the place of the oldest.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from thalweg.streams.configuration.loading import HttpSection
from thalweg.streams.refusal import Refusal
from thalweg.streams.serving.problems import ProblemError, Reply
from thalweg.streams.serving.service import Service

LOOK_EVERY_S = 0.1
BACKLOG = 128
log = logging.getLogger("thalweg.worker")


class Connection(web.RequestHandler):
    """A client's connection, which knows since when it takes time."""

    def __init__(self, server: "Server", **settings: Any) -> None:
        """Count the time from now on."""
        super().__init__(server, **settings)
        self.is_busy = True
        self.since = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Begin to count when a request begins to arrive."""
        if not self.is_busy:
            self.is_busy, self.since = True, self._loop.time()
        super().data_received(data)

    def note_answered(self) -> None:
        """Count the time of the next request from its first byte on."""
        self.is_busy, self.since = False, self._loop.time()

    def cut(self) -> None:
        """End the connection, whatever is on its way."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or failed, with a problem document too."""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(exc, OSError):
            log.error("http: a request failed: %r", exc)
            message = None
        problem = ProblemError(status, (message or "the request failed").splitlines()[0])
        response = response_of(problem.reply)
        response.force_close()
        return response


class Server(web.Server):
    """Connections, so many at a time."""

    def __init__(self, section: HttpSection, handler: Callable[..., Any]) -> None:
        """Hand requests to a handler."""
        super().__init__(handler)
        self._section = section
        self._limits = {
            "max_line_size": section.header_bytes_max,
            "max_field_size": section.header_bytes_max,
            "keepalive_timeout": section.idle_ms / 1000,
            "auto_decompress": False,
            "access_log": None,
            "logger": log,
        }

    def __call__(self) -> Connection:
        """Return the protocol of a new connection; one too many takes the place of the oldest."""
        open_ones = cast(list[Connection], self.connections)
        if len(open_ones) >= self._section.connections_max:
            min(open_ones, key=lambda each: (each.is_busy, each.since)).cut()
        return Connection(self, loop=asyncio.get_running_loop(), **self._limits)

    def cut_slow(self) -> None:
        """End the connections whose time is over."""
        now = asyncio.get_running_loop().time()
        busy_s, idle_s = self._section.timeout_ms / 1000, self._section.idle_ms / 1000
        for each in cast(list[Connection], self.connections):
            if now - each.since > (busy_s if each.is_busy else idle_s):
                each.cut()


class HttpServer:
    """Answers in a thread, so that it does while the worker's event loop is busy."""

    def __init__(self, section: HttpSection, service: Service) -> None:
        """Make it; `start` listens."""
        self._section, self.service = section, service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._listening = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self.port = 0

    def start(self) -> None:
        """Listen. Raises Refusal, naming the setting, where the port is taken."""
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            raise Refusal(
                f"http can't listen on {self._section.host}:{self._section.port} ({self._failure.strerror}): set "
                "http.port (0 for any that is free), or http.enabled=false"
            )

    def stop(self) -> None:
        """Stop listening, and cut all connections."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(self._section.timeout_ms / 1000)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        answer = self.service.answer
        timeout_s = self._section.timeout_ms / 1000

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            connection = cast(Connection, request.protocol)
            try:
                async with asyncio.timeout(timeout_s):
                    response = response_of(await answer(request))
                    await response.prepare(request)
                    await response.write_eof()
            except TimeoutError:
                connection.cut()
                return web.Response(status=HTTPStatus.REQUEST_TIMEOUT)  # which nobody reads any more
            connection.note_answered()
            return response

        server = Server(self._section, handle)
        try:
            listening = await self._loop.create_server(
                server, self._section.host, self._section.port, backlog=BACKLOG, reuse_address=True
            )
            self.port = listening.sockets[0].getsockname()[1]
        except OSError as error:
            self._failure = error
            return
        finally:
            self._listening.set()
        while not self._ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), LOOK_EVERY_S)
            server.cut_slow()
        listening.close()
        for each in cast(list[Connection], server.connections):
            each.cut()
        await self.service.close()


def response_of(reply: Reply) -> web.Response:
    """Return a reply as the library sends it."""
    response = web.Response(status=reply.status, body=reply.body, headers=dict(reply.headers))
    response.headers["Content-Type"] = reply.content_type
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
