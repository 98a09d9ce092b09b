"""An asyncio event loop whose time is made up: it never waits, it jumps to the next timer."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any


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


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their time and never sleeps; the same program runs the same way each time."""

    def __init__(self) -> None:
        """Start at second 0."""
        super().__init__()
        self._now_s = 0.0
        self._selector = self
        self.set_task_factory(_owned)
        self.set_exception_handler(lambda loop, context: None)  # a dropped task's exception is of no interest

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Jump to when something is due. Raises DeadlockError where nothing ever will be."""
        if timeout is None:
            raise DeadlockError("every task waits for another one")
        self._now_s += timeout
        return []

    def _process_events(self, events: list[Any]) -> None:
        """Take what a selector found: here it never finds anything."""

    def _write_to_self(self) -> None:
        """Wake the selector up: it never sleeps."""


def _owned(loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coroutine, loop=loop, **named)
    owner = _owner.get()
    owner.tasks[task] = None
    forget: Callable[[Any], Any] = lambda done: owner.tasks.pop(done, None)  # noqa: E731
    task.add_done_callback(forget)
    return task


def run(coroutine: Any) -> Any:
    """Run a coroutine in a virtual loop of its own and return what it returns; what it leaves running is dropped."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=60))
        NOBODY.tasks.clear()
        loop.close()
