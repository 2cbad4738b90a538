"""The command: it looks, draws and listens until it is told to end."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic

from async_tracker.cli.charts import BLOCKS, glyphs_for
from async_tracker.cli.endings import Ending, Misused
from async_tracker.cli.reach import reach, redis_of
from async_tracker.cli.target import Target
from async_tracker.cli.top.reading import Reading, Watch
from async_tracker.cli.top.screen import ASCII, UNICODE, Size, bounds_of, picture
from async_tracker.cli.top.state import State, pressed
from async_tracker.cli.top.terminal import Terminal
from async_tracker.cli.wording import shown
from async_tracker.errors import StorageError
from async_tracker.queries.wording import duration

_PATIENCE = 2.0
"""Seconds that a look may take before the screen says that Redis does not answer."""


async def top(target: Target, *, interval: float) -> int:
    """Show the namespace live. Raises StorageUnavailable where Redis does not answer the first look."""
    if target.as_json:
        raise Misused("top is for people: for programs there are ps, jobs and stats with --json")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Misused("top needs a terminal: elsewhere write ps, jobs or stats")
    logging.getLogger("async_tracker").addHandler(logging.NullHandler())  # a line of the log would stand in the picture
    async with reach(target) as tracker:
        watch = Watch(tracker, url=await redis_of(tracker))
        state = State()
        await Session(watch, await watch.look(state.view), state, interval=interval).run()
    return Ending.OK


class Session:
    """One live view, from its first picture to its end."""

    def __init__(self, watch: Watch, reading: Reading, state: State, *, interval: float) -> None:
        self._watch = watch
        self._reading = reading
        self._state = state
        self._interval = interval
        self._must_draw = asyncio.Event()
        self._must_look = asyncio.Event()
        self._looking_since: float | None = None
        self._read_at = monotonic()
        self._failure = ""

    async def run(self) -> None:
        """Show it until the state says that it is over."""
        with Terminal(on_keys=self._press, on_resize=self._must_draw.set, on_end=self._end) as self._terminal:
            self._marks = UNICODE if glyphs_for(self._terminal.console.encoding) is BLOCKS else ASCII
            looking = asyncio.create_task(self._keep_looking())
            try:
                while not self._state.is_over:
                    self._draw()
                    self._must_draw.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._must_draw.wait(), 1.0)
                    if looking.done():
                        looking.result()
            finally:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking

    def _size(self) -> Size:
        width, height = self._terminal.console.size
        return Size(width=width, height=height)

    def _draw(self) -> None:
        lines = picture(self._reading, self._state, self._size(), trouble=self._trouble(), every=self._interval, marks=self._marks)
        self._terminal.draw(lines)

    def _trouble(self) -> str | None:
        """Say why what is shown is not of just now."""
        waits = self._looking_since is not None and monotonic() - self._looking_since > _PATIENCE
        if not self._failure and not waits:
            return None
        why = self._failure or "Redis does not answer"
        return f"{duration(monotonic() - self._read_at)} old, trying again: {why}"

    def _press(self, keys: Sequence[str]) -> None:
        for key in keys:
            before = self._state
            self._state = pressed(before, key, bounds_of(self._reading, before, self._size()))
            if self._state.view is not before.view or (before.is_paused and not self._state.is_paused):
                self._must_look.set()
        self._must_draw.set()

    def _end(self) -> None:
        self._state = replace(self._state, is_over=True)
        self._must_draw.set()

    async def _keep_looking(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._must_look.wait(), self._interval)
            self._must_look.clear()
            if not self._state.is_paused:
                await self._look()

    async def _look(self) -> None:
        self._looking_since = monotonic()
        try:
            self._reading = await self._watch.look(self._state.view)
            self._failure, self._read_at = "", monotonic()
        except StorageError as exc:
            self._failure = shown(" ".join(str(exc).split()))
        finally:
            self._looking_since = None
        self._must_draw.set()
