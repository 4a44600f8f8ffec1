"""A room of people and one model: first come, first served, one at a time, and a bounded number waiting.

A `LanguageModel` serves one thread at a time, for its hooks hang on the model. So there is one worker thread, and a queue of
tickets: the first in it has the turn, and passes it on by leaving, whether it is done or its client has gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import HTTPException
from fastapi.responses import StreamingResponse

PLACES = 40  # so many may wait besides the one whose turn it is
RETRY_AFTER = 10  # seconds, for whoever finds no place
POLL = 0.25  # seconds between two looks at whether a waiting client is still there
_END = object()


class Gone(Exception):
    """The client has gone away."""


class Room:
    """The queue for one model. Its worker thread ends with the program."""

    def __init__(self):
        self._queue: deque[Ticket] = deque()
        self._thread = ThreadPoolExecutor(1, "model")

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return max(len(self._queue) - 1, 0)

    @property
    def busy(self) -> bool:
        """Whether it is anybody's turn."""
        return bool(self._queue)

    def ticket(self) -> Ticket:
        """A place at the end of the queue, to be given back with `leave`.

        Raises:
            HTTPException: there is none.
        """
        if self.waiting >= PLACES:
            raise HTTPException(
                503,
                f"{self.waiting} requests are waiting already, which is the most that is taken: try again in "
                f"{RETRY_AFTER} seconds.",
                {"Retry-After": str(RETRY_AFTER)},
            )
        ticket = Ticket(self)
        self._queue.append(ticket)
        self._call()
        return ticket

    def _call(self) -> None:
        if self._queue:
            self._queue[0].called.set()


class Ticket:
    """One place in the queue, and the work that is done when it comes up."""

    def __init__(self, room: Room):
        self.called, self.left = asyncio.Event(), False
        self._room = room
        self._work: Generator | None = None

    async def turn(self, gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[int]:
        """Wait: yields how many are ahead, at first and whenever that changes, and ends when the turn has come.

        Raises:
            Gone: `gone` said that the client has left.
        """
        said = None
        while not self.called.is_set():
            ahead = self._room._queue.index(self)
            if ahead != said:
                said = ahead
                yield ahead
            try:
                await asyncio.wait_for(self.called.wait(), POLL)
            except asyncio.TimeoutError:  # the built-in one only from Python 3.11 on
                if await gone():
                    raise Gone from None

    async def work(self, steps: Generator, gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[Any]:
        """Run a generator in the worker thread, step by step, and yield what it yields. Only when the turn has come.

        Raises:
            Gone: `gone` said that the client has left.
        """
        self._work = steps
        loop = asyncio.get_running_loop()
        while True:
            step = loop.run_in_executor(self._room._thread, next, steps, _END)
            step.add_done_callback(
                lambda done: done.cancelled() or done.exception()
            )  # nobody asks, when the client has gone
            while not (await asyncio.wait([step], timeout=POLL))[0]:
                if await gone():
                    raise Gone
            item = step.result()
            if item is _END:
                return
            yield item
            if await gone():
                raise Gone

    def leave(self) -> None:
        """Give the place back, and the turn to the next; again does nothing."""
        self.left = True  # a step that looks at it ends early
        if self not in self._room._queue:
            return
        if self._work is not None:
            # Before the next one's first step, for the thread does one thing after the other: a step that still runs
            # ends, then the generator takes its hooks off the model.
            self._room._thread.submit(self._work.close)
        self._room._queue.remove(self)
        self._room._call()


class TicketedStream(StreamingResponse):
    """A stream of lines of JSON that gives its place back however it ends, even where it never began."""

    def __init__(self, content: AsyncIterator[str], ticket: Ticket):
        super().__init__(content, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})
        self._ticket = ticket

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.leave()
