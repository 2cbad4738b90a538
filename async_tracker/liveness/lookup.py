"""Asks the server which of the registered connections it still has."""

import re
from collections.abc import Iterable
from typing import Any

from async_tracker.connections.calls import call
from async_tracker.connections.replies import Argument
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.liveness.evidence import Findings, OpenConnections, findings_of, registered_in
from async_tracker.store.observation import Connections, Observation

_CLIENT = re.compile(rb"^id=(\d+) (?:(?!name=)\S+ )*?name=(\S*)", re.MULTILINE)

_IDS_AT_ONCE = 2_000

Command = tuple[Argument, ...]


def connections_calls(registered: Iterable[Connections], *, run_id: str) -> list[Command]:
    """Give the commands that ask the server ``run_id`` which of these connections it has; none where all are another server's."""
    ids = sorted({number for connections in registered if connections.server == run_id for number in connections.ids}) if run_id else []
    return [("CLIENT", "LIST", "ID", *map(str, ids[start : start + _IDS_AT_ONCE])) for start in range(0, len(ids), _IDS_AT_ONCE)]


def read_connections(replies: Iterable[Any], *, run_id: str) -> OpenConnections:
    """Read the answers to `connections_calls`. A refusal is an answer: the server is too old, or does not allow the question."""
    names: dict[int, str] = {}
    for reply in replies:
        if not isinstance(reply, bytes):
            return OpenConnections(None, run_id)
        names.update((int(number), name.decode("utf-8", "replace")) for number, name in _CLIENT.findall(reply))
    return OpenConnections(names if run_id else None, run_id)


async def ask_connections(client: Any, registered: Iterable[Connections], *, run_id: str) -> OpenConnections:
    """Ask the server which of these connections it has. A refusal is an answer. Raises StorageUnavailable when it is away."""
    try:
        replies = [await call(client, *command) for command in connections_calls(registered, run_id=run_id)]
    except StorageUnavailable:
        raise
    except StorageError as exc:
        replies = [exc]
    return read_connections(replies, run_id=run_id)


async def find_connections(client: Any, observation: Observation) -> Findings:
    """Ask for the connections of all instances of an observation: one round trip. Raises as `ask_connections`."""
    registered = registered_in(observation)
    return findings_of(observation, registered, await ask_connections(client, registered.values(), run_id=observation.run_id))
