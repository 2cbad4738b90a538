"""The keys and arguments of each Lua file, and how its reply is read, for every sender of a script."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from async_tracker.connections.calls import Script, load_script
from async_tracker.connections.replies import Argument, pairs, text
from async_tracker.errors import StorageError
from async_tracker.store import keys
from async_tracker.store.observation import Observation
from async_tracker.store.run_record import RunRecord, encode_run
from async_tracker.store.writes import Beat, Ended

_NAMES = (
    "register beat write speak deregister lease release_lease observe mark_gone declare_dead adopt tell settle bury unquarantine".split()
)

SCRIPTS: dict[str, Script] = {name: load_script(__package__, name) for name in _NAMES}

_LENGTHS = {"register": 2, "beat": 2, "write": 2, "lease": 3, "observe": 8}
"""How many values these scripts return; the others return one number."""

TOMBSTONE_MS = 7 * 86_400_000
"""For how long an instance that was declared dead is told so when it returns."""

EVENTS_KEPT = 10_000
"""About how many events the stream keeps."""


def observe_call(run_id: str) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``observe.lua``; with '' it only reads."""
    return [keys.INSTANCES, keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS, keys.DEAD, keys.SERVER], [run_id]


def read_observation(reply: Sequence[Any], run_id: str) -> Observation:
    """Read the reply of ``observe.lua`` for the server that is known to be ``run_id``.

    A server that is not the one that was noted has just changed: nobody has sat down to sweep since.
    """
    now, noted, since, instances, connections, gone, watchdogs, dead = reply
    since_ms = int(since) if int(since) >= 0 else None
    if run_id and text(noted) and text(noted) != run_id:
        since_ms = int(now)
    return Observation(
        now_ms=int(now),
        server_since_ms=since_ms,
        run_id=run_id,
        instances=pairs(instances),
        connections=pairs(connections),
        gone={name: int(stamp) for name, stamp in pairs(gone).items() if stamp.isdecimal()},
        watchdogs=pairs(watchdogs),
        dead={name: int(float(stamp)) for name, stamp in pairs(dead).items()},
    )


def write_call(
    instance_id: str, sequence: int, *, started: Sequence[RunRecord], ended: Sequence[Ended]
) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``write.lua``; the watchdog sends them over a connection of its own."""
    names = [keys.INSTANCES, keys.instance(instance_id), keys.jobs(instance_id)]
    arguments: list[Argument] = [instance_id, sequence, len(started), len(ended)]
    for record in started:
        names.append(keys.job(record.ref))
        arguments += [record.ref, record.run, record.started_at_ms, encode_run(record)]
    for end in ended:
        names.append(keys.job(end.job_id))
        mark = mark_of(instance_id) if end.run is None else f'"run":"{end.run}"'
        arguments += [end.job_id, mark, int(end.last_here)]
    return names, arguments


def mark_of(instance_id: str) -> str:
    """Give what stands in a record of this instance, and in no other."""
    return f'"instance":{json.dumps(instance_id)}'


def beat_call(instance_id: str, beat: Beat) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``beat.lua``; the watchdog sends them where the process ends before its loop could."""
    names = [keys.INSTANCES, keys.instance(instance_id), keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS]
    names += [keys.counters(instance_id), keys.STATS, keys.minute(beat.minute)]
    arguments = [instance_id, beat.sequence, beat.connections, len(beat.fields), *flat(beat.fields), *flat(beat.counters)]
    return names, arguments


def deregister_call(instance_id: str) -> tuple[list[str], list[Argument]]:
    names = [keys.INSTANCES, keys.instance(instance_id), keys.jobs(instance_id), keys.counters(instance_id)]
    names += [keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS, keys.DEAD, keys.tombstone(instance_id)]
    return names, [instance_id, TOMBSTONE_MS]


def checked(name: str, reply: Any) -> Any:
    if not is_answer(name, reply):
        raise StorageError(f"Redis answers the script {name!r} with what it never returns: {reply!r:.100}")
    return reply


def is_answer(name: str, reply: Any) -> bool:
    length = _LENGTHS.get(name)
    return type(reply) is int if length is None else isinstance(reply, list) and len(reply) == length


def flat(fields: Mapping[str, Any]) -> list[Argument]:
    return [part for pair in fields.items() for part in pair]
