"""From what was given on the command line to a tracker, with limits on how long Redis may take."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from async_tracker.cli.target import Target
from async_tracker.config import DEFAULT_REDIS_URL
from async_tracker.connections.access import SOCKET_TIMEOUT, describe, redis_options
from async_tracker.connections.calls import call
from async_tracker.connections.replies import role_of
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.integrations.known import by_argument
from async_tracker.tracker import Tracker

CONNECT_TIMEOUT = 3.0
"""Seconds that a command waits for a connection, unless the url says otherwise."""


_NAMELESS = {"lib_name": None, "lib_version": None}
"""By which a connection does not begin with two commands that say which library made it: for one that is closed in a moment."""


def make_tracker(target: Target, *, timeout: float | None = None, is_brief: bool = False) -> Tracker:
    """Make the tracker that a command asks; ``TRACKER_…`` variables are its settings. Raises ConfigError.

    ``timeout``, in seconds, bounds each wait for Redis. ``is_brief``: it asks one thing, and its connection says no more than that.
    """
    url = target.redis_url
    if url is None:
        url = os.environ.get("TRACKER_REDIS_URL") or os.environ.get("REDIS_URL") or DEFAULT_REDIS_URL
    own: dict[str, Any] = {"socket_timeout": timeout or SOCKET_TIMEOUT, "socket_connect_timeout": timeout or CONNECT_TIMEOUT}
    if is_brief:
        own |= _NAMELESS
    given_options = redis_options({"url": url})
    options = {"url": url, **{name: value for name, value in own.items() if name not in given_options}}
    given: dict[str, Any] = {} if target.namespace is None else {"namespace": target.namespace}
    return Tracker.from_env(redis_options=options, **by_argument(target.library_urls), **given)


@asynccontextmanager
async def reach(target: Target) -> AsyncIterator[Tracker]:
    """Give a tracker to ask, and close it. StorageUnavailable names the Redis that could not be reached."""
    tracker = make_tracker(target)
    async with tracker:
        url = await redis_of(tracker)
        try:
            yield tracker
        except StorageUnavailable as exc:
            raise StorageUnavailable(f"{exc} ({url})") from exc


async def redis_of(tracker: Tracker) -> str:
    """Tell which Redis a tracker uses, as a url without its password."""
    async with tracker.redis() as namespaced:
        return describe(namespaced.redis)


async def role_asked(tracker: Tracker) -> str:
    """Tell whether a ``primary`` or a ``replica`` answers; '' where the server does not tell. Raises StorageUnavailable."""
    async with tracker.redis() as namespaced:
        try:
            return role_of(await call(namespaced.redis, "INFO", "replication"))
        except StorageUnavailable:
            raise
        except StorageError:  # not allowed
            return ""
