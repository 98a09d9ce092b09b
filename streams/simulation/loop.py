"""An asyncio event loop whose time is made up: it never waits, it jumps to the next timer."""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, cast


class DeadlockError(Exception):
    """Nothing is left that could ever happen."""


class Owner:
    """Whom tasks belong to: they are dropped together."""

    def __init__(self) -> None:
        """Own nothing yet."""
        # in the order in which they were made: the order in which they are dropped is part of a run
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Start a task; it and all that it starts belong to this owner."""
        token = _owner.set(self)
        try:
            task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
            return task
        finally:
            _owner.reset(token)

    def drop(self) -> None:
        """Cancel all tasks."""
        for task in list(self.tasks):
            task.cancel()


NOBODY = Owner()
_owner: ContextVar[Owner] = ContextVar("owner", default=NOBODY)


class _Call:
    """A call that is to come, in the context that it was asked for in."""

    __slots__ = ("_when_s", "arguments", "context", "function", "is_cancelled")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], context: Context | None, when_s: float
    ) -> None:
        self.function, self.arguments = function, arguments
        self.context = copy_context() if context is None else context
        self.is_cancelled = False
        self._when_s = when_s

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when_s


class VirtualLoop:
    """Makes calls in the order of their time, those of one time in the order in which they were asked for.

    It never sleeps, and has no more of an `AbstractEventLoop` than tasks, futures and timeouts ask of one; the same
    program runs the same way each time.
    """

    def __init__(self) -> None:
        """Start at second 0."""
        self._now_s = 0.0
        self._timers_made = 0
        self._ready: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Call]] = []

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def get_debug(self) -> bool:
        """Return False."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report nothing: a dropped task's exception is of no interest."""

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        """Call as soon as what was asked for before is done."""
        call = _Call(callback, args, context, self._now_s)
        self._ready.append(call)
        return call

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        """Call when so many seconds are over."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        """Call at a time."""
        call = _Call(callback, args, context, when)
        self._timers_made += 1
        heappush(self._timers, (when, self._timers_made, call))
        return call

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future."""
        return asyncio.Future(loop=cast(asyncio.AbstractEventLoop, self))

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        """Start a task, which belongs to the owner of the one that starts it."""
        task = asyncio.Task(coro, loop=cast(asyncio.AbstractEventLoop, self), name=name, context=context)
        owner = _owner.get()
        owner.tasks[task] = None
        forget: Callable[[Any], Any] = lambda done: owner.tasks.pop(done, None)  # noqa: E731
        task.add_done_callback(forget)
        return task

    def run_until_complete(self, future: Any) -> Any:
        """Run until a coroutine is done, and return what it returns.

        Raises DeadlockError where nothing is left that could ever happen.
        """
        events._set_running_loop(cast(asyncio.AbstractEventLoop, self))
        try:
            task = self.create_task(future)
            while not task.done():
                self._run_once()
            return task.result()
        finally:
            events._set_running_loop(None)

    def _run_once(self) -> None:
        """Make the calls that are due, having jumped to the next timer where there is none."""
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2].is_cancelled:
                heappop(timers)
            if not timers:
                raise DeadlockError("every task waits for another one")
            self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            call = ready.popleft()
            if not call.is_cancelled:
                call.context.run(call.function, *call.arguments)


def run(coroutine: Any) -> Any:
    """Run a coroutine in a new virtual loop and return what it returns; what it leaves running is dropped."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        left = asyncio.all_tasks(cast(asyncio.AbstractEventLoop, loop))
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(_wait(left))
        NOBODY.tasks.clear()


async def _wait(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait until tasks are done, a minute at most."""
    await asyncio.wait(tasks, timeout=60)
