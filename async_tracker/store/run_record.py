"""The record of a run in flight, as JSON: pure.

A record that another version or another program wrote raises CorruptRecord; a reader of many skips it and reports its key.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from async_tracker.errors import CorruptRecord
from async_tracker.policy import NO_LIBRARY
from async_tracker.store.fitting import fit_number, fit_text, fit_whole

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
    token: str
    """What distinguishes this run from every other one of the same job."""
    job_try: int = 1
    function: str | None = None
    queue: str | None = None
    library: str = NO_LIBRARY
    enqueued_at_ms: int | None = None
    started_at_ms: int
    timeout: float | None = None
    progress: float | None = None
    progress_message: str | None = None
    args: str | None = None
    superseded: int = 0
    scope: str = ""
    """What is put before the job's id in keys and sets, where its library's ids could be another library's too."""
    max_tries: int | None = None
    """How often the library tries the job at most, where its worker keeps tries."""
    keep_tries: int = 0
    """How many tries its worker gives back to one job, of runs that did not end by themselves; 0: none."""
    hold: str | None = None
    """Where the library notes that this run has the job, in its adapter's words; None where the job's id says it."""
    traceparent: str | None = None
    """The span of this run, as the W3C writes it, where spans are recorded: the run that follows a lost one is linked to it."""

    @property
    def ref(self) -> str:
        """What keys and sets call the job."""
        return job_ref(self.scope, self.job_id)

    @property
    def claim(self) -> str:
        """What the fence holds while this run has the job: the instance and the token of the run."""
        return f"{self.instance_id}:{self.token}"

    @property
    def tries_to_keep(self) -> int:
        """How many tries of its job may be given back; a job that is to run once never has one back.

        >>> RunRecord(job_id="42", instance_id="w", token="r", started_at_ms=5, keep_tries=20, max_tries=5).tries_to_keep
        20
        >>> RunRecord(job_id="42", instance_id="w", token="r", started_at_ms=5, keep_tries=20, max_tries=1).tries_to_keep
        0
        """
        return self.keep_tries if self.max_tries is not None and self.max_tries > 1 else 0


_TEXT, _NUMBER, _WHOLE = frozenset({str}), frozenset({int, float}), frozenset({int})

LAST_MOMENT_MS = 253_402_300_799_999
"""The end of the year 9999: a datetime knows no later one."""

_STORED: tuple[tuple[str, str, frozenset[type]], ...] = (
    ("instance", "instance_id", _TEXT),
    ("run", "token", _TEXT),
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
    ("max_tries", "max_tries", _WHOLE),
    ("keep_tries", "keep_tries", _WHOLE),
    ("traceparent", "traceparent", _TEXT),
)
"""Name in the JSON, attribute of the record, types that it may have."""

_KINDS = {name: kinds for name, _, kinds in _STORED} | {"schema": _WHOLE}

_JSON = frozenset({str, int, float, bool, type(None), list, dict})

_OPTIONAL = {
    "function",
    "queue",
    "enqueued_at_ms",
    "timeout",
    "progress",
    "message",
    "args",
    "superseded",
    "scope",
    "hold",
    "max_tries",
    "keep_tries",
    "traceparent",
}

StoredRun = Mapping[str, Any]
"""The JSON of a run, found sound: what is known in it has the right type, and nothing that must be there is missing."""

_scan_json: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
"""What `json.loads` does for text that holds exactly one value; ten thousand records are read in one query."""

_write_json = json.JSONEncoder(separators=(",", ":")).encode
"""What `json.dumps` does, without making an encoder for every record that a worker writes."""


def encode_run(record: RunRecord) -> bytes:
    """Write the record as JSON, pure ASCII, so that no client's encoding can spoil it. Raises nothing.

    A value that is of another kind than its field is made fit; where that cannot be, the record is written without the field.

    >>> encode_run(RunRecord(job_id="42", instance_id="web:1:ab", token="f00d", started_at_ms=5, function="é"))
    b'{"schema":1,"instance":"web:1:ab","run":"f00d","try":1,"function":"\\\\u00e9","library":"asyncio","started_at_ms":5}'
    """
    stored: dict[str, Any] = {"schema": RECORD_SCHEMA}
    for name, attribute, kinds in _STORED:
        value = getattr(record, attribute)
        if value is not None and name != "started_at_ms" and (kinds is not _TEXT or type(value) is not str):
            value = _fitted(name, value, kinds)
        if value or (value is not None and (name not in _OPTIONAL or name == "progress")):
            stored[name] = value
    return _write_json(stored).encode("ascii")


def _fitted(name: str, value: Any, kinds: frozenset[type]) -> Any:
    """Make a value what its field takes; not a float that JSON does not know, nor a number or a time that cannot be read back."""
    if kinds is _TEXT:
        return fit_text(value)
    if type(value) is not int:
        return fit_whole(value) if kinds is _WHOLE else fit_number(value)
    return value if (0 if name.endswith("_ms") else -LAST_MOMENT_MS) <= value <= LAST_MOMENT_MS else None


# The scripts do not parse a record: they look for these marks in it. Inside a JSON text each quotation mark has a backslash before
# it, so no argument and no id, whatever it holds, can contain a mark.

ANY_MARK = '"instance":"'
"""Stands in every record, once, and in nothing that is none."""

BEFORE_START = '"started_at_ms":'
"""Stands in every record before the moment at which its run started."""


def run_mark(token: str) -> str:
    """Give what stands in a record of this run, and in no other's.

    >>> run_mark("f00d")
    '"run":"f00d"'
    """
    return f'"run":{_write_json(token)}'


def instance_mark(instance_id: str) -> str:
    """Give what stands in a record of this instance, and in no other's.

    >>> instance_mark("web:1:ab")
    '"instance":"web:1:ab"'
    """
    return f'"instance":{_write_json(instance_id)}'


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
    if not (0 <= stored["started_at_ms"] <= LAST_MOMENT_MS and 0 <= stored.get("enqueued_at_ms", 0) <= LAST_MOMENT_MS):
        raise ValueError("a time in it is none")
    return stored


RUN_BEGINS = f'{{"schema":{RECORD_SCHEMA},'
"""How a record begins, before the mark of its instance."""


@lru_cache(maxsize=1_024)
def read_said(said: bytes) -> tuple[str | None, str | None] | None:
    """Read function and queue off what a record says from its try to its library; None where these are no names.

    >>> read_said(b'"try":2,"function":"send","queue":"mail"'), read_said(b'"try":1')
    (('send', 'mail'), (None, None))
    >>> read_said(b'"try":1,"function":5'), read_said(b'"function"')
    (None, None)
    """
    try:
        stored = json.loads(b"{%b}" % said)
    except (ValueError, RecursionError):
        return None
    names = stored.get("function"), stored.get("queue")
    return names if all(name is None or isinstance(name, str) for name in names) else None


def job_id_of(ref: str, stored: StoredRun) -> str:
    """Give the id of the job that is called ``ref`` in keys and sets.

    >>> job_id_of("dramatiq:42", {"scope": "dramatiq"}), job_id_of("dramatiq:42", {})
    ('42', 'dramatiq:42')
    """
    return ref.removeprefix(f"{stored['scope']}:") if stored.get("scope") else ref


def run_record(ref: str, stored: StoredRun) -> RunRecord:
    """Make the record of what `read_run` gave."""
    return RunRecord(job_id=job_id_of(ref, stored), **{attribute: stored[name] for name, attribute, _ in _STORED if name in stored})
