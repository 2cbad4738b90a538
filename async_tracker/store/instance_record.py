"""What an instance says of itself, as a hash: pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from async_tracker.errors import CorruptRecord
from async_tracker.policy import InstanceState, Limits
from async_tracker.store.fitting import fit_number, fit_text, fit_whole
from async_tracker.store.run_record import LAST_MOMENT_MS, RECORD_SCHEMA
from async_tracker.store.writable import writable

FUNCTIONS_LENGTH = 1_024
"""Characters of the list of functions that stands in the hash of an instance: a longer one is kept once for all that have the same."""

_DIGEST_LENGTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What an instance reports to its operators: something about its set-up that is not as it was meant."""

    says: str
    remedy: str
    is_error: bool = False
    """Not even what was asked for is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What an instance says of itself once, when it registers; `Limits` and the evidence are kept beside it."""

    library: str
    host: str
    host_id: str
    pid: int
    label: str | None = None
    queue: str | None = None
    """The name of its queue, for people; of several, all of them."""
    queues: tuple[str, ...] = ()
    """The names of its queues, where it works on several."""
    functions: tuple[str, ...] = ()
    concurrency: int | None = None
    claim_seconds: float | None = None
    """How long a claim of its library lives, where all live for as long and the adapter must know it."""
    tags: tuple[str, ...] = ()
    version: str | None = None
    """What its team calls the deploy that it belongs to."""
    versions: Mapping[str, str] = field(default_factory=dict)
    redis: str | None = None
    claims_server: str | None = None
    """Run id of the server that holds the worker library's claims; None when it is the tracker's own."""
    broker: str | None = None
    """What an adapter must know to find the claims, in its own words."""
    notes: tuple[Note, ...] = ()


def encode_description(description: Description, limits: Limits) -> dict[str, str | int | float]:
    """Give the fields of ``instance:{id}`` that do not change while the instance lives.

    What cannot be stored of one field is left out: it must not keep the instance from registering.
    """
    concurrency = fit_whole(description.concurrency)
    functions = stored_functions(description.functions)
    fields: dict[str, str | int | float] = {
        "schema": RECORD_SCHEMA,
        "library": description.library,
        "host": description.host,
        "host_id": description.host_id,
        "pid": description.pid,
        "functions": functions.own,
        "function_list": functions.digest,
        "tags": _dumped(description.tags),
        "versions": json.dumps({fit_text(name): fit_text(version) for name, version in description.versions.items()}),
        "limits": json.dumps([limits.heartbeat_ttl, limits.disconnect_grace, limits.silence_limit, limits.stall_limit]),
        "label": fit_text(description.label) or "",
        "version": fit_text(description.version) or "",
        "queue": fit_text(description.queue) or "",
        "queues": _dumped(description.queues) if description.queues else "",
        "concurrency": "" if concurrency is None else concurrency,
        "claim_seconds": "" if description.claim_seconds is None else description.claim_seconds,
        "redis": description.redis or "",
        "claims_server": description.claims_server or "",
        "broker": description.broker or "",
        "notes": json.dumps([[note.says, note.remedy, note.is_error] for note in description.notes]) if description.notes else "",
    }
    return {name: value for name, value in fields.items() if value != ""}


@dataclass(frozen=True, slots=True)
class StoredFunctions:
    """The names of an instance's functions as they are stored."""

    own: str
    """JSON, in the hash of the instance: all of them, or the first that fit. Older versions read nothing else."""
    digest: str = ""
    """By which the whole list is found, where not all fit."""
    whole: str = ""
    """That list, as JSON."""


def stored_functions(functions: Iterable[object]) -> StoredFunctions:
    """Tell how the names of functions are stored. A long list is sorted, so that it is one and the same in all processes that have it.

    >>> stored_functions(["send", "pay"])
    StoredFunctions(own='["send", "pay"]', digest='', whole='')
    >>> many = stored_functions([f"send_{number:03}" for number in range(999, -1, -1)])
    >>> len(many.own), many.own[:22], many.digest == functions_digest(many.whole), read_functions(many.digest, many.whole)[-1]
    (1020, '["send_000", "send_001', True, 'send_999')
    """
    return _stored_functions(tuple(text for text in map(fit_text, functions) if text is not None))


@lru_cache(maxsize=16)
def _stored_functions(names: tuple[str, ...]) -> StoredFunctions:
    all_of_them = json.dumps(names)
    if len(all_of_them) <= FUNCTIONS_LENGTH:
        return StoredFunctions(all_of_them)
    first: list[str] = []
    room = FUNCTIONS_LENGTH
    for name in sorted(names):
        room -= len(json.dumps(name)) + 2
        if room < 0:
            break
        first.append(name)
    whole = json.dumps(sorted(names))
    return StoredFunctions(json.dumps(first), functions_digest(whole), whole)


def functions_digest(whole: str) -> str:
    """Give the digest by which a whole list is found."""
    return hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST_LENGTH]


def read_functions(digest: str, whole: str) -> tuple[str, ...]:
    """Read a whole list of functions back. Raises ValueError for what is not the list with this digest."""
    if functions_digest(whole) != digest:
        raise ValueError(f"{whole!r:.40} is not the list {digest}")
    return tuple(map(str, json.loads(whole)))


def encode_queues(description: Description) -> str:
    """Write which queues an instance works on, as it stands in the list of all of them; '' for none and no broker that could tell.

    >>> encode_queues(Description(library="arq", host="h", host_id="0f", pid=7, queue="mail"))
    '["arq",null,["mail"]]'
    >>> encode_queues(Description(library="asyncio", host="h", host_id="0f", pid=7))
    ''
    """
    names = [name for name in map(fit_text, description.queues or (description.queue,)) if name]
    if not names and description.broker is None:
        return ""
    return json.dumps([description.library, description.broker, names], separators=(",", ":"))


def decode_queues(stored: str) -> Description | None:
    """Read which queues instances of one library work on; None for what another program wrote.

    >>> decode_queues('["arq",null,["mail"]]').queues, decode_queues("no list")
    (('mail',), None)
    """
    try:
        library, broker, names = json.loads(stored)
        return Description(library=library, host="", host_id="", pid=0, queues=tuple(map(str, names)), broker=broker)
    except (ValueError, TypeError, RecursionError):
        return None


def _dumped(names: Iterable[object]) -> str:
    return json.dumps([text for text in map(fit_text, names) if text is not None])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """``instance:{id}``, read: what it said at registration, and what it said last."""

    instance_id: str
    description: Description
    limits: Limits
    started_at_ms: int
    state: str = InstanceState.ALIVE
    busy: int = 0
    unlisted: int = 0
    rss_bytes: int | None = None
    loop_lag_ms: int = 0
    blocked_at: tuple[str, ...] = ()
    blocked_since_ms: int | None = None
    jobs_started: int = 0
    jobs_ended: int = 0
    jobs_failed: int = 0
    dropped: int = 0
    failing: str = ""
    """Which loops of its tracker fail, and how."""
    died_at_ms: int | None = None
    death_reason: str = ""
    function_list: str | None = None
    """The digest of the whole list of its functions, where its description has not all of them."""
    is_blameless: bool = False
    """Its death counts against no job: the server had changed."""


_WritableDescription, _WritableStored = writable(Description), writable(StoredInstance)


def decode_instance(key: str, instance_id: str, stored: Mapping[str, str]) -> StoredInstance:
    """Read ``instance:{id}``. Raises CorruptRecord for what another version or another program wrote."""
    if stored.get("schema") != str(RECORD_SCHEMA):
        raise CorruptRecord(key, f"schema {stored.get('schema')}, this version reads {RECORD_SCHEMA}")
    try:
        made = _WritableStored()
        made.instance_id = instance_id
        made.description = _decode_description(stored)
        made.limits = _decode_limits(stored["limits"])
        made.started_at_ms = _moment(stored["started_at_ms"])
        made.state = stored.get("state", InstanceState.ALIVE)
        made.busy = int(stored.get("busy", 0))
        made.unlisted = int(stored.get("unlisted", 0))
        made.rss_bytes = _number(stored, "rss_bytes")
        made.loop_lag_ms = int(stored.get("loop_lag_ms", 0))
        made.blocked_at = _texts(stored.get("blocked_at", "[]"))
        made.blocked_since_ms = _moment(stored["blocked_since_ms"]) if "blocked_since_ms" in stored else None
        made.jobs_started = int(stored.get("jobs_started", 0))
        made.jobs_ended = int(stored.get("jobs_ended", 0))
        made.jobs_failed = int(stored.get("jobs_failed", 0))
        made.dropped = int(stored.get("dropped", 0))
        made.failing = stored.get("failing", "")
        made.died_at_ms = _moment(stored["died_at_ms"]) if "died_at_ms" in stored else None
        made.death_reason = stored.get("death_reason", "")
        made.function_list = stored.get("function_list") or None
        made.is_blameless = stored.get("blameless") == "1"
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise CorruptRecord(key, f"a field is missing or has the wrong type: {exc}") from exc
    made.__class__ = StoredInstance
    stored_instance: StoredInstance = made
    return stored_instance


def of_another_schema(instance_id: str, stored: Mapping[str, str]) -> StoredInstance:
    """Read as much of another version's ``instance:{id}`` as it takes to judge it by its own limits.

    If even this cannot be read, it belongs to no library: a sweep of the version that wrote it deals with it.

    >>> of_another_schema("w", {"schema": "2", "library": "arq", "limits": "[15.0,30.0,60.0,null]"}).limits.disconnect_grace
    30.0
    >>> of_another_schema("w", {"schema": "2", "library": "arq", "limits": "{}"}).description.library
    ''
    """
    try:
        library, limits, queues = stored["library"], _decode_limits(stored["limits"]), _texts(stored.get("queues", "[]"))
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        library, limits, queues = "", Limits(), ()
    host_id = stored.get("host_id", f"?{instance_id}")
    description = Description(
        library=library, host=stored.get("host", "?"), host_id=host_id, pid=0, queue=stored.get("queue"), queues=queues
    )
    return StoredInstance(instance_id=instance_id, description=description, limits=limits, started_at_ms=0)


def _decode_description(stored: Mapping[str, str]) -> Description:
    made = _WritableDescription()
    made.library = stored["library"]
    made.host = stored["host"]
    made.host_id = stored["host_id"]
    made.pid = int(stored["pid"])
    made.label = stored.get("label")
    made.queue = stored.get("queue")
    made.queues = _texts(stored.get("queues", "[]"))
    made.functions = _texts(stored["functions"])
    made.concurrency = _number(stored, "concurrency")
    made.claim_seconds = float(stored["claim_seconds"]) if "claim_seconds" in stored else None
    made.tags = _texts(stored["tags"])
    made.version = stored.get("version")
    made.versions = _versions(stored["versions"])
    made.redis = stored.get("redis")
    made.claims_server = stored.get("claims_server")
    made.broker = stored.get("broker")
    made.notes = _notes(stored.get("notes", "[]"))
    made.__class__ = Description
    description: Description = made
    return description


# A fleet says the same thing a thousand times: what is equal is read once.


@lru_cache(maxsize=1_024)
def _texts(stored: str) -> tuple[str, ...]:
    return tuple(map(str, json.loads(stored)))


@lru_cache(maxsize=1_024)
def _notes(stored: str) -> tuple[Note, ...]:
    return tuple(Note(says=str(says), remedy=str(remedy), is_error=bool(is_error)) for says, remedy, is_error in json.loads(stored))


@lru_cache(maxsize=1_024)
def _versions(stored: str) -> Mapping[str, str]:
    return MappingProxyType(dict(json.loads(stored)))


@lru_cache(maxsize=1_024)
def _decode_limits(stored: str) -> Limits:
    ttl, grace, silence, stall = json.loads(stored)
    for seconds in (ttl, grace, silence, stall if stall is not None else 0.0):
        if fit_number(seconds) != seconds or isinstance(seconds, bool):
            raise ValueError(f"{seconds!r:.40} is no limit")
    return Limits(heartbeat_ttl=ttl, disconnect_grace=grace, silence_limit=silence, stall_limit=stall)


def _moment(stored: str) -> int:
    moment_ms = int(stored)
    if not 0 <= moment_ms <= LAST_MOMENT_MS:
        raise ValueError(f"{moment_ms} is no time")
    return moment_ms


def _number(stored: Mapping[str, str], name: str) -> int | None:
    return int(stored[name]) if name in stored else None
