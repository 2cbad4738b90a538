"""Asks the server which of the registered connections it still has."""

import re
from collections.abc import Iterable
from typing import Any

from async_tracker.connections.calls import call
from async_tracker.connections.replies import Argument
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.liveness.evidence import Findings, Seen, findings_of, registered_in
from async_tracker.store.observation import Connections, Observation

_CLIENT = re.compile(rb"^id=(\d+) (?:(?!name=)\S+ )*?name=(\S*)", re.MULTILINE)

_IDS_AT_ONCE = 2_000

Command = tuple[Argument, ...]


def connections_calls(registered: Iterable[Connections], *, run_id: str) -> list[Command]:
    """Give the commands that ask the server ``run_id`` which of these connections it has; none where it would not know them."""
    ids = sorted({number for connections in registered if connections.server == run_id for number in connections.ids}) if run_id else []
    return [("CLIENT", "LIST", "ID", *map(str, ids[start : start + _IDS_AT_ONCE])) for start in range(0, len(ids), _IDS_AT_ONCE)]


def read_connections(replies: Iterable[Any], *, run_id: str) -> Seen:
    """Read what the server answers to `connections_calls`: a refusal is an answer, of an old server or one that does not allow it."""
    names: dict[int, str] = {}
    for reply in replies:
        if not isinstance(reply, bytes):
            return Seen(None, run_id)
        names.update((int(number), name.decode("utf-8", "replace")) for number, name in _CLIENT.findall(reply))
    return Seen(names if run_id else None, run_id)


async def see_connections(client: Any, registered: Iterable[Connections], *, run_id: str) -> Seen:
    """Ask the server which of these connections it has. Raises StorageUnavailable when it is away; a refusal is an answer."""
    try:
        replies = [await call(client, *command) for command in connections_calls(registered, run_id=run_id)]
    except StorageUnavailable:
        raise
    except StorageError as exc:
        replies = [exc]
    return read_connections(replies, run_id=run_id)


async def find(client: Any, observation: Observation) -> Findings:
    """Look up the connections of all instances of an observation: one round trip."""
    registered = registered_in(observation)
    return findings_of(observation, registered, await see_connections(client, registered.values(), run_id=observation.run_id))
