"""What is stored, and how: the record of a run, what an instance says of itself, the evidence at one moment.

Pure: text in, records out. A record that another version or somebody else wrote raises CorruptRecord; whoever reads many
skips it and says so.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from async_tracker.errors import CorruptRecord
from async_tracker.policy import Limits

RECORD_SCHEMA = 1
"""Version of the JSON in ``job:{id}``. A record of another version is reported as corrupt and skipped."""


def job_ref(scope: str, job_id: str) -> str:
    """Give what keys and sets call a job: its id, or ``scope:id`` where two libraries of a namespace may use the same ids.

    >>> job_ref("", "42"), job_ref("dramatiq", "42")
    ('42', 'dramatiq:42')
    """
    return f"{scope}:{job_id}" if scope else job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The record of a run in flight, as it is stored in ``job:{id}``. Times in ms of the server's clock."""

    job_id: str
    instance_id: str
    run: str
    job_try: int = 1
    function: str | None = None
    queue: str | None = None
    library: str = "asyncio"
    enqueued_at_ms: int | None = None
    started_at_ms: int
    timeout: float | None = None
    progress: float | None = None
    progress_message: str | None = None
    args: str | None = None
    superseded: int = 0
    scope: str = ""
    """What is put before the job's id in keys and sets, where its library's ids could be another library's too."""
    hold: str | None = None
    """Where the library notes that this run has the job, in its adapter's words; None where the job's id says it."""

    @property
    def ref(self) -> str:
        """What keys and sets call the job."""
        return job_ref(self.scope, self.job_id)

    @property
    def token(self) -> str:
        """What the fence holds while this run does."""
        return f"{self.instance_id}:{self.run}"


_TEXT, _NUMBER, _WHOLE = frozenset({str}), frozenset({int, float}), frozenset({int})
_LAST_MOMENT_MS = 253_402_300_799_999
"""The end of the year 9999: a datetime knows no later one."""

_STORED: tuple[tuple[str, str, frozenset[type]], ...] = (
    ("instance", "instance_id", _TEXT),
    ("run", "run", _TEXT),
    ("try", "job_try", _WHOLE),
    ("function", "function", _TEXT),
    ("queue", "queue", _TEXT),
    ("library", "library", _TEXT),
    ("enqueued_at_ms", "enqueued_at_ms", _WHOLE),
    ("started_at_ms", "started_at_ms", _WHOLE),
    ("timeout", "timeout", _NUMBER),
    ("progress", "progress", _NUMBER),
    ("message", "progress_message", _TEXT),
    ("args", "args", _TEXT),
    ("superseded", "superseded", _WHOLE),
    ("scope", "scope", _TEXT),
    ("hold", "hold", _TEXT),
)
"""Name in the JSON, attribute of the record, types that it may have."""
_KINDS = {name: kinds for name, _, kinds in _STORED} | {"schema": _WHOLE}
_JSON = frozenset({str, int, float, bool, type(None), list, dict})
_OPTIONAL = {"function", "queue", "enqueued_at_ms", "timeout", "progress", "message", "args", "superseded", "scope", "hold"}

StoredRun = Mapping[str, Any]
"""The JSON of a run, found sound: what is known in it has the right type, and nothing that must be there is missing."""

_scan_json: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
"""What `json.loads` does for text that is known to be nothing but one value; ten thousand records are read in one query."""

_write_json = json.JSONEncoder(separators=(",", ":")).encode
"""What `json.dumps` does, without making an encoder for every record that a worker writes."""


def encode_run(record: RunRecord) -> bytes:
    """Write the record as JSON, pure ASCII, so that no client's encoding can spoil it.

    >>> encode_run(RunRecord(job_id="42", instance_id="web:1:ab", run="f00d", started_at_ms=5, function="é"))
    b'{"schema":1,"instance":"web:1:ab","run":"f00d","try":1,"function":"\\\\u00e9","library":"asyncio","started_at_ms":5}'
    """
    stored: dict[str, Any] = {"schema": RECORD_SCHEMA}
    for name, attribute, _ in _STORED:
        value = getattr(record, attribute)
        if value or name not in _OPTIONAL or (value == 0.0 and name == "progress"):
            stored[name] = value
    return _write_json(stored).encode("ascii")


def decode_run(key: str, ref: str, raw: bytes | str) -> RunRecord:
    """Read what `encode_run` wrote under the job's ``ref``. Raises CorruptRecord for anything else, another schema included.

    >>> decode_run("job:42", "42", b'{"schema":1,"instance":"w","run":"r","try":2,"library":"arq","started_at_ms":5}').job_try
    2
    >>> decode_run("job:42", "42", b'{"schema":9}')
    Traceback (most recent call last):
    async_tracker.errors.CorruptRecord: 'job:42' holds no record that this version can read: not schema 1
    """
    try:
        return run_record(ref, read_run(raw))
    except ValueError as exc:
        raise CorruptRecord(key, str(exc)) from exc


def read_run(raw: bytes | str) -> StoredRun:
    """Read the JSON of a run and leave it at that: of ten thousand, a query makes something else at once.

    Raises ValueError, which says why, for what `encode_run` never wrote.
    """
    stored: StoredRun  # or whatever else is JSON
    try:
        stored, _ = _scan_json(raw if isinstance(raw, str) else raw.decode("utf-8"), 0)
    except (ValueError, StopIteration, RecursionError) as exc:
        raise ValueError("not JSON") from exc
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if type(schema) is not int or schema != RECORD_SCHEMA:  # JSON's true equals 1
        raise ValueError(f"not schema {RECORD_SCHEMA}")
    for name, value in stored.items():
        if type(value) not in _KINDS.get(name, _JSON):
            raise ValueError(f"{name} has the wrong type")
    if "instance" not in stored or "run" not in stored or "started_at_ms" not in stored:
        raise ValueError("a field is missing: it must name its instance, its run and when it started")
    if not (0 <= stored["started_at_ms"] <= _LAST_MOMENT_MS and 0 <= stored.get("enqueued_at_ms", 0) <= _LAST_MOMENT_MS):
        raise ValueError("a time in it is none")
    return stored


def job_id_of(ref: str, stored: StoredRun) -> str:
    """Give the id of the job that is called ``ref`` in keys and sets.

    >>> job_id_of("dramatiq:42", {"scope": "dramatiq"}), job_id_of("dramatiq:42", {})
    ('42', 'dramatiq:42')
    """
    return ref.removeprefix(f"{stored['scope']}:") if stored.get("scope") else ref


def run_record(ref: str, stored: StoredRun) -> RunRecord:
    """Make the record of what `read_run` gave."""
    return RunRecord(job_id=job_id_of(ref, stored), **{attribute: stored[name] for name, attribute, _ in _STORED if name in stored})


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What an instance has to say to whoever runs it: something about its set-up that is not as it was meant."""

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
    tags: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    redis: str | None = None
    claims_server: str | None = None
    """Run id of the server that holds the worker library's claims; None when it is the tracker's own."""
    broker: str | None = None
    """What an adapter must know to find the claims, in its own words."""
    notes: tuple[Note, ...] = ()


def encode_description(description: Description, limits: Limits) -> dict[str, str | int | float]:
    """Give the fields of ``instance:{id}`` that do not change while the instance lives."""
    fields: dict[str, str | int | float] = {
        "schema": RECORD_SCHEMA,
        "library": description.library,
        "host": description.host,
        "host_id": description.host_id,
        "pid": description.pid,
        "functions": json.dumps(description.functions),
        "tags": json.dumps(description.tags),
        "versions": json.dumps(dict(description.versions)),
        "limits": json.dumps([limits.heartbeat_ttl, limits.disconnect_grace, limits.silence_limit, limits.stall_limit]),
        "label": description.label or "",
        "queue": description.queue or "",
        "queues": json.dumps(description.queues) if description.queues else "",
        "concurrency": "" if description.concurrency is None else description.concurrency,
        "redis": description.redis or "",
        "claims_server": description.claims_server or "",
        "broker": description.broker or "",
        "notes": json.dumps([[note.says, note.remedy, note.is_error] for note in description.notes]) if description.notes else "",
    }
    return {name: value for name, value in fields.items() if value != ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """``instance:{id}``, read: what it said at registration, and what it said last."""

    instance_id: str
    description: Description
    limits: Limits
    started_at_ms: int
    state: str = "alive"
    busy: int = 0
    rss_bytes: int | None = None
    loop_lag_ms: int = 0
    blocked_at: tuple[str, ...] = ()
    blocked_since_ms: int | None = None
    jobs_started: int = 0
    jobs_ended: int = 0
    dropped: int = 0
    died_at_ms: int | None = None
    death_reason: str = ""


def decode_instance(key: str, instance_id: str, stored: Mapping[str, str]) -> StoredInstance:
    """Read ``instance:{id}``. Raises CorruptRecord for what another version or somebody else wrote."""
    if stored.get("schema") != str(RECORD_SCHEMA):
        raise CorruptRecord(key, f"schema {stored.get('schema')}, this version reads {RECORD_SCHEMA}")
    try:
        return StoredInstance(
            instance_id=instance_id,
            description=_decode_description(stored),
            limits=_decode_limits(stored["limits"]),
            started_at_ms=_moment(stored["started_at_ms"]),
            state=stored.get("state", "alive"),
            busy=int(stored.get("busy", 0)),
            rss_bytes=_number(stored, "rss_bytes"),
            loop_lag_ms=int(stored.get("loop_lag_ms", 0)),
            blocked_at=_texts(stored.get("blocked_at", "[]")),
            blocked_since_ms=_moment(stored["blocked_since_ms"]) if "blocked_since_ms" in stored else None,
            jobs_started=int(stored.get("jobs_started", 0)),
            jobs_ended=int(stored.get("jobs_ended", 0)),
            dropped=int(stored.get("dropped", 0)),
            died_at_ms=_moment(stored["died_at_ms"]) if "died_at_ms" in stored else None,
            death_reason=stored.get("death_reason", ""),
        )
    except (KeyError, ValueError, TypeError) as exc:
        raise CorruptRecord(key, f"a field is missing or has the wrong type: {exc}") from exc


def of_another_schema(instance_id: str, stored: Mapping[str, str]) -> StoredInstance:
    """Read as much of another version's ``instance:{id}`` as it takes to judge it by its own limits.

    What cannot even be read so far belongs to no library: whoever wrote it, or a sweep of that version, sees to it.

    >>> of_another_schema("w", {"schema": "2", "library": "arq", "limits": "[15.0,30.0,60.0,null]"}).limits.disconnect_grace
    30.0
    >>> of_another_schema("w", {"schema": "2", "library": "arq", "limits": "{}"}).description.library
    ''
    """
    try:
        library, limits, queues = stored["library"], _decode_limits(stored["limits"]), _texts(stored.get("queues", "[]"))
    except (KeyError, ValueError, TypeError, AttributeError):
        library, limits, queues = "", Limits(), ()
    host_id = stored.get("host_id", f"?{instance_id}")
    description = Description(
        library=library, host=stored.get("host", "?"), host_id=host_id, pid=0, queue=stored.get("queue"), queues=queues
    )
    return StoredInstance(instance_id=instance_id, description=description, limits=limits, started_at_ms=0)


def _decode_description(stored: Mapping[str, str]) -> Description:
    return Description(
        library=stored["library"],
        host=stored["host"],
        host_id=stored["host_id"],
        pid=int(stored["pid"]),
        label=stored.get("label"),
        queue=stored.get("queue"),
        queues=_texts(stored.get("queues", "[]")),
        functions=_texts(stored["functions"]),
        concurrency=_number(stored, "concurrency"),
        tags=_texts(stored["tags"]),
        versions=_versions(stored["versions"]),
        redis=stored.get("redis"),
        claims_server=stored.get("claims_server"),
        broker=stored.get("broker"),
        notes=_notes(stored.get("notes", "[]")),
    )


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
    return Limits(heartbeat_ttl=ttl, disconnect_grace=grace, silence_limit=silence, stall_limit=stall)


def _moment(stored: str) -> int:
    moment_ms = int(stored)
    if not 0 <= moment_ms <= _LAST_MOMENT_MS:
        raise ValueError(f"{moment_ms} is no time")
    return moment_ms


def _number(stored: Mapping[str, str], name: str) -> int | None:
    return int(stored[name]) if name in stored else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The connections that an instance has registered, and on which server they were.

    >>> Connections.decode(Connections(server="5f", ids={7: "async-tracker:ab"}).encode()).ids
    {7: 'async-tracker:ab'}
    """

    server: str = ""
    ids: Mapping[int, str] = field(default_factory=dict)

    def encode(self) -> str:
        """Write it as the JSON that is compared, byte by byte, when an instance is declared dead."""
        return json.dumps({"server": self.server, "ids": {str(key): self.ids[key] for key in sorted(self.ids)}}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> "Connections":
        """Read it; what cannot be read is no evidence, so it comes back empty."""
        try:
            stored = json.loads(text)
            return cls(server=stored["server"], ids={int(key): str(name) for key, name in stored["ids"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The evidence of a namespace at one moment, as it is stored; scores and JSON are kept as they were read."""

    now_ms: int
    server_since_ms: int | None
    run_id: str
    instances: Mapping[str, str]
    connections: Mapping[str, str]
    gone: Mapping[str, int]
    watchdogs: Mapping[str, str]
    dead: Mapping[str, int]
