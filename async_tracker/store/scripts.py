"""The keys and arguments of each Lua file, and how its reply is read, for every sender of a script."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from async_tracker.connections.calls import Script, ScriptCall, load_script
from async_tracker.connections.replies import Argument, pairs, text
from async_tracker.errors import StorageError
from async_tracker.store import keys
from async_tracker.store.counters import BOUNDS, OTHER, OTHERS_BEGIN, PAIRS_KEPT, CountedBatch, counted_name
from async_tracker.store.observation import Changes, Observation
from async_tracker.store.run_record import BEFORE_START, LAST_MOMENT_MS, RunRecord, encode_run, instance_mark, run_mark
from async_tracker.store.writes import Beat, Ended

_OF_INSTANCES = ("register", "beat", "write", "count", "speak", "deregister", "list_functions")
_OF_SWEEPS = ("lease", "release_lease", "mark_gone", "note_stall", "declare_dead", "adopt", "announce", "settle", "bury", "list_queues")
_BY_HAND = ("unquarantine",)
_OF_EVIDENCE = ("observe", "observe_some", "observe_changes")
_OF_ORDERS = ("order", "answer", "stand", "withdraw")
_OF_HISTORY = ("sample", "roll_up", "close_minute", "close_hour", "mark_deploy")

SCRIPTS: dict[str, Script] = {
    name: load_script(__package__, name) for name in (*_OF_INSTANCES, *_OF_EVIDENCE, *_OF_SWEEPS, *_BY_HAND, *_OF_ORDERS, *_OF_HISTORY)
}

_LENGTHS = {"register": 3, "beat": 6, "write": 3, "count": 2, "speak": 3, "lease": 3, "observe": 8, "observe_changes": 10, "order": 2}
"""How many values these scripts return; the others return one number."""
_TEXTS = {"answer"}
"""These return a text."""

_OBSERVED_AT_ONCE = 500
"""On how many instances one script reads the evidence: less than a millisecond of the server's time."""

_PARTS_OF_ONE = 5
"""How many values ``observe_some.lua`` returns of each instance, after the first three."""

TOMBSTONE_MS = 7 * 86_400_000
"""For how long an instance that was declared dead is told so when it returns."""

ANSWER_MS = 60_000
"""For how long the answer to an order is kept for the caller who waits for it."""

EVENTS_SECONDS = 30 * 86_400
"""For how long events are kept: a sweep takes older ones out of the stream, and without one it goes as long after its last event."""

EVENTS_KEPT = 100_000
"""About how many events the stream keeps at most, however short the time in which they came: 27 MB."""

STATS_SECONDS = 30 * 86_400
"""For how long the counters are kept after the last of them has grown."""

STATS_KEPT = 20_000
"""How many counters of all time there may be before a function that has none yet counts with all others that have none."""

MINUTE_MS = 60_000

HOURS_SECONDS = 31 * 86_400
"""For how long what was counted in an hour is kept: 30 days, and the day that is not over yet; and minutes that are in no hour yet."""

DEPLOYS_KEPT = 200
"""How many deploys the history keeps at most, and how many versions it knows."""

VERSION_AWAY_MS = 10 * 60_000
"""For how long no instance of a version must have been seen, after another one was deployed, for its return to be a deploy."""

SERIES_KEPT = PAIRS_KEPT
"""How many pairs of function and queue have a history of their own; the others share one."""

QUEUES_SECONDS = 86_400
"""For how long the list of queues is kept after it was last written."""

FUNCTIONS_SECONDS = 86_400
"""For how long a list of functions is kept after an instance that has it last said so."""

HOSTS_SECONDS = 30 * 86_400
"""For how long the list of hosts is kept after it was last renewed, by a registration or once a minute by a sweep."""

HOSTS_LOOKED_AT = 200
"""How many entries of the list of hosts a sweep looks at in a minute, where there are more than instances."""

CHANGED_MS = 60_000
"""For how long it is kept that an instance registered, changed its connections or left: a sweeper that looked longer ago reads all."""

CHANGED_SECONDS = 2 * CHANGED_MS // 1000
"""For how long the list of changes is kept after the last of them."""

SERVER_SECONDS = 30 * 86_400
"""For how long it is remembered which server it was, after it was last observed."""

SERVER_RENEWED_MS = 86_400_000
"""After how long that memory is renewed: not at each observation, most of which write nothing."""


_OTHER_PAIR = counted_name(OTHER, None)

_CLOCK_ERROR_MS = 2_000.0
"""By how much the server may be behind the time that a process takes it to have."""


def observe_call(run_id: str) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``observe.lua``; with '' it only reads."""
    names = [keys.INSTANCES, keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS, keys.DEAD, keys.SERVER]
    return names, [run_id, SERVER_SECONDS, SERVER_RENEWED_MS]


def read_observation(reply: Sequence[Any], run_id: str) -> Observation:
    """Read the reply of ``observe.lua`` for the server that is known to be ``run_id``.

    A server that is not the one that was noted has just changed: no sweep has noted it yet.
    """
    now, noted, since, instances, connections, gone, watchdogs, dead = reply
    return Observation(
        now_ms=int(now),
        server_since_ms=_server_since_ms(now, noted, since, run_id),
        run_id=run_id,
        instances={name: _score(stamp) for name, stamp in pairs(instances).items()},
        connections=pairs(connections),
        gone={name: int(stamp) for name, stamp in pairs(gone).items() if _is_moment(stamp)},
        watchdogs={name: _score(stamp) for name, stamp in pairs(watchdogs).items()},
        dead={name: int(float(_score(stamp))) for name, stamp in pairs(dead).items()},
    )


def observe_changes_call(run_id: str, *, since_ms: int, late_ms: int) -> ScriptCall:
    """Give the call of ``observe_changes.lua``."""
    names = [keys.INSTANCES, keys.CHANGED, keys.GONE, keys.WATCHDOGS, keys.DEAD, keys.SERVER]
    return SCRIPTS["observe_changes"], names, [run_id, SERVER_SECONDS, SERVER_RENEWED_MS, since_ms, late_ms, CHANGED_MS]


def read_changes(reply: Sequence[Any], run_id: str) -> Changes:
    """Read the reply of ``observe_changes.lua``."""
    now, noted, since, instances, are_known, changed, late, gone, watchdogs, dead = checked("observe_changes", reply)
    return Changes(
        now_ms=int(now),
        server_since_ms=_server_since_ms(now, noted, since, run_id),
        instances=int(instances),
        are_known=int(are_known) == 1,
        changed=frozenset(map(text, changed)),
        doubtful=frozenset(map(text, [*late, *gone, *watchdogs])),
        dead={name: int(float(_score(stamp))) for name, stamp in pairs(dead).items()},
    )


def _server_since_ms(now: Any, noted: Any, since: Any, run_id: str) -> int | None:
    if run_id and text(noted) and text(noted) != run_id:
        return int(now)
    return int(since) if int(since) >= 0 else None


def observe_some_calls(instance_ids: Sequence[str]) -> list[ScriptCall]:
    """Give the calls of ``observe_some.lua`` that read the evidence on these instances, some hundreds by each."""
    names = [keys.INSTANCES, keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS, keys.DEAD, keys.SERVER]
    parts = [instance_ids[start : start + _OBSERVED_AT_ONCE] for start in range(0, max(len(instance_ids), 1), _OBSERVED_AT_ONCE)]
    return [(SCRIPTS["observe_some"], names, part) for part in parts]


def read_observed_some(instance_ids: Sequence[str], replies: Sequence[Any], run_id: str) -> Iterator[Observation]:
    """Read the replies to `observe_some_calls`, one after the other, each as `read_observation` does.

    Each is of a moment of its own; `observation.together` puts them together.
    """
    for number, reply in enumerate(replies):
        part = instance_ids[number * _OBSERVED_AT_ONCE : (number + 1) * _OBSERVED_AT_ONCE]
        if not isinstance(reply, list) or len(reply) != 3 + _PARTS_OF_ONE * len(part):
            raise _no_answer("observe_some", reply)
        now, noted, since = reply[:3]
        found = [dict(zip(part, map(text, reply[3 + at :: _PARTS_OF_ONE]), strict=True)) for at in range(_PARTS_OF_ONE)]
        instances, connections, gone, watchdogs, dead = ({name: said for name, said in each.items() if said} for each in found)
        yield Observation(
            now_ms=int(now),
            server_since_ms=_server_since_ms(now, noted, since, run_id),
            run_id=run_id,
            instances={name: _score(stamp) for name, stamp in instances.items()},
            connections=connections,
            gone={name: int(stamp) for name, stamp in gone.items() if _is_moment(stamp)},
            watchdogs={name: _score(stamp) for name, stamp in watchdogs.items()},
            dead={name: int(float(_score(stamp))) for name, stamp in dead.items()},
        )


_DIGITS = 16


def _is_moment(stamp: str) -> bool:
    return stamp.isdecimal() and len(stamp) < _DIGITS


def _score(stamp: str) -> str:
    """Give a score as it was read, if it can be a time in ms; else that of the beginning, as another program may have written it.

    >>> _score("1700000000000"), _score("inf"), _score("1e+300"), _score("-5")
    ('1700000000000', '0', '0', '0')
    """
    return stamp if 0 <= float(stamp) <= LAST_MOMENT_MS else "0"


def write_call(
    instance_id: str, sequence: int, *, started: Sequence[RunRecord], ended: Sequence[Ended]
) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``write.lua``; the watchdog sends them over a connection of its own."""
    names = [keys.INSTANCES, keys.instance(instance_id), keys.jobs(instance_id)]
    arguments: list[Argument] = [instance_id, sequence, BEFORE_START, len(started), len(ended)]
    for record in started:
        names.append(keys.job(record.ref))
        arguments += [record.ref, run_mark(record.token), record.started_at_ms, encode_run(record)]
    for end in ended:
        names.append(keys.job(end.job_id))
        mark = instance_mark(instance_id) if end.token is None else run_mark(end.token)
        arguments += [end.job_id, mark, int(end.last_here)]
    return names, arguments


def beat_call(instance_id: str, beat: Beat) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``beat.lua``; the watchdog sends them where the process ends before its loop could."""
    names = [keys.INSTANCES, keys.instance(instance_id), keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS]
    names += [keys.STATS, keys.CHANGED, keys.lease(beat.lease)]
    arguments: list[Argument] = [instance_id, beat.sequence, beat.connections, STATS_SECONDS, CHANGED_SECONDS, STATS_KEPT, OTHERS_BEGIN]
    arguments.append(len(beat.fields))
    totals = [beat.totals.after, beat.totals.number, *flat(beat.totals.grown)] if beat.totals is not None else []
    return names, [*arguments, *flat(beat.fields), *totals]


def count_call(instance_id: str, batch: CountedBatch, *, now_ms: float, since_ms: float) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``count.lua``; both times are the server's, the first as it is estimated."""
    minute = int((now_ms - _CLOCK_ERROR_MS) // MINUTE_MS)
    names = [keys.INSTANCES, keys.instance(instance_id), keys.MINUTES, keys.SERIES, keys.minute(minute), keys.minute(minute + 1)]
    names += [keys.total(pair) for pair in (*(item.pair for item in batch.counted), _OTHER_PAIR)]
    arguments: list[Argument] = [instance_id, batch.number, minute, int(since_ms), HOURS_SECONDS, HOURS_SECONDS]
    arguments += [SERIES_KEPT, _OTHER_PAIR, ",".join(map(str, BOUNDS)), len(batch.counted)]
    for item in batch.counted:
        arguments += [item.pair, len(item.counters), *flat(item.counters)]
    return names, arguments


def answer_call(instance_id: str, order_id: str, answer: str, event: str) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``answer.lua``; the watchdog sends them where the loop cannot."""
    names = [keys.instance(instance_id), keys.answer(order_id), keys.EVENTS]
    return names, [order_id, answer, ANSWER_MS, EVENTS_KEPT, EVENTS_SECONDS, event]


def deregister_call(instance_id: str) -> tuple[list[str], list[Argument]]:
    """Give keys and arguments of ``deregister.lua``."""
    names = [keys.INSTANCES, keys.instance(instance_id), keys.jobs(instance_id), keys.CONNECTIONS, keys.GONE]
    names += [keys.WATCHDOGS, keys.DEAD, keys.tombstone(instance_id), keys.CHANGED, keys.HOSTS]
    return names, [instance_id, TOMBSTONE_MS, CHANGED_SECONDS]


def checked(name: str, reply: Any) -> Any:
    """Give the reply of a script; raises StorageError for what that script never returns."""
    if not is_answer(name, reply):
        raise _no_answer(name, reply)
    return reply


def _no_answer(name: str, reply: Any) -> StorageError:
    return StorageError(f"Redis answers the script {name!r} with what it never returns: {reply!r:.100}")


def is_answer(name: str, reply: Any) -> bool:
    if name in _TEXTS:
        return isinstance(reply, str | bytes)
    length = _LENGTHS.get(name)
    return type(reply) is int if length is None else isinstance(reply, list) and len(reply) == length


def flat(fields: Mapping[str, Any]) -> list[Argument]:
    return [part for pair in fields.items() for part in pair]
