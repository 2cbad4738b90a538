"""The live stream: one loop reads for all viewers, and each is sent what has changed since its last message.

Nothing is queued for a viewer. It is sent the last few changes of its screens, or the whole picture where it was away for
longer; so a slow one costs only its connection, and is dropped where that does not move.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from async_tracker.errors import StorageError
from async_tracker.web.answers import Problem, compact
from async_tracker.web.pictures import Picture, Pictures, changes
from async_tracker.web.readings import Readings
from async_tracker.web.screens import Wanted

PERIOD = 1.0
"""Seconds between two rounds; in each, the screens that viewers follow are read."""
VIEWERS_MOST = 200
TOPICS_MOST = 16
"""Screens that one stream may follow: as many as tabs that one browser shows at once."""
CHANNELS_A_ROUND = 8
"""Different screens that are read in one round; more take turns. The overview is not counted."""
MOUNTED_FOR = 10.0
"""Seconds after which a stream ends by itself where the app is not ours: its server waits for open streams when it is told to stop."""
_LINGER = 4.0
"""Seconds for which a screen is kept up to date after the last viewer has gone: one that was cut off comes back."""
_REMEMBERED = 12
"""Rounds whose changes are remembered."""
_QUIET_FOR = 15.0
"""Seconds after which a comment keeps a quiet connection open."""
SEND_WITHIN = 10.0
"""Seconds within which a viewer must take what it is sent."""

_OUR_MISTAKE = "this is a mistake of async-tracker: the log of the process that serves this page says more"

logger = logging.getLogger("async_tracker")


@dataclass(slots=True, kw_only=True)
class Channel:
    """One screen as a viewer has opened it."""

    asked: Wanted
    picture: Picture | None = None
    first: int = 0
    """The round since which it is followed: a viewer whose last message came before it needs the whole."""
    numbers: dict[str, int] = field(default_factory=dict)
    changes: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    error: str | None = None
    is_begun: bool = False
    """It was read, or tried to: a viewer who comes is shown what that found, and waits for no reading of its own."""
    viewers: int = 0
    wanted_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def whole(self) -> bytes:
        """Write the whole picture."""
        if self.picture is None:
            return compact({"whole": True, "facts": {}, "order": [], "rows": {}, "error": self.error})
        rows = {self.numbers[key]: row for key, row in self.picture.rows.items()}
        whole = {"whole": True, "facts": self.picture.facts, "order": list(rows), "rows": rows}
        return compact(whole if self.error is None else {**whole, "error": self.error})


class Live:
    """The hub of one app. Its loop runs while there is a viewer, and a few seconds longer."""

    def __init__(
        self, readings: Readings, *, ends_after: float | None = MOUNTED_FOR, send_within: float = SEND_WITHIN, version: str = ""
    ) -> None:
        self._readings = readings
        self._version = version
        self._pictures = Pictures(readings)
        self._ends_after = ends_after
        self._send_within = send_within
        self._channels: dict[Wanted, Channel] = {}
        self._turn: deque[Wanted] = deque()
        self._head = Channel(asked=Wanted(screen="head"))
        self._epoch = secrets.token_hex(3)
        self._round = 0
        self._written: dict[tuple[tuple[str, ...], int | None], bytes] = {}
        """What viewers of the same screens, who have heard the same, are sent in this round: it is written once."""
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._viewers = 0
        self.is_stopping = False

    # the loop

    async def _run(self) -> None:
        while self._viewers or any(self._is_wanted(channel) for channel in self._channels.values()):
            await asyncio.sleep(PERIOD)
            await self.run_round()
        self._task = None

    async def run_round(self) -> None:
        """Bring up to date what viewers follow, as far as it is not fresh, and tell them; the loop does so each second."""
        for asked in [asked for asked, channel in self._channels.items() if not self._is_wanted(channel)]:
            del self._channels[asked]
            self._turn.remove(asked)
        await self._update(self._head)
        first = [asked for asked in self._turn if asked.screen == "overview"]
        rest = [asked for asked in self._turn if asked.screen != "overview"][:CHANNELS_A_ROUND]
        for asked in [*first, *rest]:
            await self._update(self._channels[asked])
        self._turn.rotate(-len(rest))
        self._round += 1
        self._written.clear()
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _is_wanted(self, channel: Channel) -> bool:
        return channel.viewers > 0 or asyncio.get_running_loop().time() < channel.wanted_until

    async def _update(self, channel: Channel) -> None:
        async with channel.lock:
            await self._make_anew(channel)

    async def _make_anew(self, channel: Channel) -> None:
        """Make the picture anew and remember what has changed; where that fails the old one stays, and says so."""
        try:
            made: Picture | None
            if channel is self._head:
                made = Picture(facts={**await self._pictures.head(), "page": self._version})
            else:
                made = await self._pictures.make(channel.asked)
            error = None
        except StorageError as exc:
            made, error = channel.picture, str(exc)
        except Exception:  # the edge of the loop: the other screens must not be left standing still because of this one
            made, error = channel.picture, _OUR_MISTAKE
            if channel.error != error:
                logger.exception("the screen %s of the page could not be brought up to date; trying again", channel.asked.screen)
        changed: dict[str, Any] | None = None
        if made is not None and made is not channel.picture:
            changed = changes(channel.picture, made, channel.numbers)
        if error != channel.error:
            changed = {**(changed or {}), "error": error}
        channel.picture, channel.error, channel.is_begun = made, error, True
        if changed is not None:
            # A viewer that comes during this round may be sent them twice, which changes nothing.
            channel.changes.append((self._round + 1, compact(changed)))
            self._written.clear()

    # viewers

    def _channel(self, asked: Wanted) -> Channel:
        channel = self._channels.get(asked)
        if channel is None:
            self._round += 1  # no message before this round has told of it
            channel = self._channels[asked] = Channel(asked=asked, first=self._round)
            self._turn.append(asked)
        return channel

    def _joined(self, topics: Sequence[Wanted]) -> list[Channel]:
        """Count a viewer of these screens, and give them; `_left` must follow, whatever comes in between."""
        if self._task is None:  # there was no viewer for a while: the changes that are remembered have a gap
            self._channels.clear()
            self._turn.clear()
            self._written.clear()
            self._round += 1
            self._head = Channel(asked=Wanted(screen="head"), first=self._round)
            self._task = asyncio.create_task(self._run())
        self._viewers += 1
        channels = [self._head, *[self._channel(asked) for asked in topics]]
        for channel in channels:
            channel.viewers += 1
        return channels

    async def _begun(self, channels: Sequence[Channel]) -> None:
        """Read those of the screens that were not read yet: once, however many viewers come at the same time."""
        for channel in channels:
            async with channel.lock:
                if not channel.is_begun:
                    await self._make_anew(channel)
                    self._round += 1  # viewers that are here already are sent it by the next round, this one in its first message

    def _left(self, channels: Sequence[Channel]) -> None:
        self._viewers -= 1
        for channel in channels:
            channel.viewers -= 1
            channel.wanted_until = asyncio.get_running_loop().time() + _LINGER

    def _event(self, names: tuple[str, ...], channels: Sequence[Channel], since: int | None) -> bytes:
        """Write what a viewer was not sent: the changes since that round, or whole pictures."""
        news = self._written.get((names, since))
        if news is None:
            news = self._written[names, since] = self._news_of(names, channels, since)
        head = b'id: %s-%d\ndata: {"now":%d,"at":%d,"news":[' % (self._epoch.encode(), self._round, self._readings.now_ms(), self._at_ms())
        return head + news + b"]}\n\n"

    @staticmethod
    def _news_of(names: tuple[str, ...], channels: Sequence[Channel], since: int | None) -> bytes:
        parts = []
        for name, channel in zip(("head", *names), channels, strict=True):
            if since is None or since < channel.first or (len(channel.changes) == _REMEMBERED and since < channel.changes[0][0] - 1):
                parts.append(b"[%s,[%s]]" % (compact(name), channel.whole()))
            else:
                missed = [text for number, text in channel.changes if number > since]
                if missed:
                    parts.append(b"[%s,[%s]]" % (compact(name), b",".join(missed)))
        return b",".join(parts)

    def _at_ms(self) -> int:
        """Tell how fresh what is shown is: the server's time of the last reading of the instances, or now where there was none."""
        last = self._readings.last("instances")
        return last.at_ms if last is not None else 0

    def _since(self, last_event_id: str | None) -> int | None:
        epoch, _, number = (last_event_id or "").partition("-")
        return int(number) if epoch == self._epoch and number.isdigit() and len(number) < 10 and self._task is not None else None

    async def stream(
        self, scope: Scope, receive: Receive, send: Send, *, topics: Sequence[tuple[str, Wanted]], last_event_id: str | None, once: bool
    ) -> None:
        """Answer with the stream of these topics, each by the name under which it was asked for. Raises Problem when there is no room."""
        if self.is_stopping:
            raise Problem(503, "stopping", "this process is ending", headers={"retry-after": "2"})
        if self._viewers >= VIEWERS_MOST:
            message = f"{VIEWERS_MOST} viewers are connected to this process already: close a page, or try again later"
            raise Problem(503, "too_many_viewers", message, headers={"retry-after": "10"})
        since = self._since(last_event_id)
        channels = self._joined([asked for _, asked in topics])
        try:
            await self._begun(channels)
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store, no-transform"),
                (b"x-accel-buffering", b"no"),
            ]
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                with anyio.fail_after(self._send_within):
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._send_news(send, tuple(name for name, _ in topics), channels, since, once=once)
                group.cancel_scope.cancel()
        except* TimeoutError:
            logger.info("a viewer of the page did not take what it was sent for %s s: dropped", self._send_within)
        finally:
            self._left(channels)

    async def _send_news(self, send: Send, names: tuple[str, ...], channels: Sequence[Channel], since: int | None, *, once: bool) -> None:
        ends_at = anyio.current_time() + self._ends_after if self._ends_after is not None else None
        body = b"retry: 1000\n\n"
        while True:
            news, reached = self._news, self._round
            body += self._event(names, channels, since)
            since = reached
            is_last = once or self.is_stopping or (ends_at is not None and anyio.current_time() >= ends_at)
            with anyio.fail_after(self._send_within):
                await send({"type": "http.response.body", "body": body, "more_body": not is_last})
            if is_last:
                return
            body = b""
            wait = _QUIET_FOR if ends_at is None else max(min(_QUIET_FOR, ends_at - anyio.current_time()), 0.0)
            with anyio.move_on_after(wait) as waited:
                await news.wait()
            if waited.cancelled_caught:
                body = b": still here\n\n"

    def stop(self) -> None:
        """End every stream now: the process is asked to end."""
        self.is_stopping = True
        self._news.set()

    async def aclose(self) -> None:
        """End the loop."""
        self.stop()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
