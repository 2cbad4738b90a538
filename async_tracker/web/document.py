"""The description of the API, OpenAPI 3.1: its schemas are made of the records themselves, so that neither can forget a field."""

import dataclasses
import types
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from async_tracker import __version__
from async_tracker.doctor.findings import Finding
from async_tracker.records import (
    Abort,
    Answer,
    Chain,
    Deploy,
    Event,
    FunctionStats,
    History,
    HistoryPoint,
    Instance,
    Job,
    Orphan,
    Quarantined,
    QueueDepth,
    QueueSample,
    Recovery,
    Snapshot,
    Stacks,
    ThreadStack,
    WaitingJobs,
)
from async_tracker.web.answers import DOCUMENT_VERSION
from async_tracker.web.screens import LIMIT, LIMIT_MOST, SCREENS
from async_tracker.web.spans import WINDOWS

Schema = dict[str, Any]

_RECORDS = (
    Abort,
    Answer,
    Chain,
    Deploy,
    Instance,
    Job,
    Orphan,
    Quarantined,
    QueueDepth,
    Event,
    FunctionStats,
    History,
    HistoryPoint,
    QueueSample,
    Recovery,
    Snapshot,
    Stacks,
    ThreadStack,
    WaitingJobs,
    Finding,
)
_PLAIN: Mapping[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
    Any: {},
}
_ROWS: Mapping[str, tuple[str, type, str]] = {
    "instances": ("instances", Instance, "The instances, and the dead whose orphans are not yet recovered."),
    "jobs": ("jobs", Job, "The jobs in flight."),
    "orphans": ("orphans", Orphan, "The jobs whose instance is dead and that are not yet recovered."),
    "quarantine": ("quarantined", Quarantined, "The poison pills."),
    "functions": ("functions", FunctionStats, "The counters by function and queue."),
    "queues": ("queues", QueueDepth, "How full the queues are."),
    "events": (
        "events",
        Event,
        "The newest 12,000 events at most, the newest first. Within seconds of the first question they are all there.",
    ),
}
_VERSION: Schema = {"type": "integer", "const": DOCUMENT_VERSION}
_AT: Schema = {"type": "integer", "description": "The server's time of the reading, in milliseconds. It may be a second old."}
_PATTERNS = {"older": r"^\d{1,12}(\.\d{1,6})?$", "overdue": "^[01]$"}


def openapi() -> Schema:
    """Describe everything under ``/api/v1`` and the two questions for health."""
    paths: Schema = {
        "/api/v1/snapshot": _get("snapshot", "Instances, jobs and orphans at one moment.", _snapshot()),
        "/api/v1/doctor": _get(
            "doctor",
            "What `async-tracker doctor` finds.",
            _document(at_ms=_AT, healthy=_PLAIN[bool], namespace=_PLAIN[str], findings=_list(_ref(Finding))),
        ),
        "/api/v1/instances/{id}": _get(
            "instance",
            "One instance and its jobs.",
            _document(at_ms=_AT, instance=_ref(Instance), jobs=_list(_ref(Job))),
            parameters=[_in_path("id")],
            errors=(404,),
        ),
        "/api/v1/jobs/{id}": _get(
            "job", "The newest run in flight of one job.", _document(job=_ref(Job)), parameters=[_in_path("id")], errors=(404, 409)
        ),
        "/api/v1/history": _get(
            "history",
            "What was, in steps: of one function, of one queue, or of all of them together.",
            {"allOf": [_document(at_ms=_AT), _ref(History)]},
            parameters=[_parameter("function", _PLAIN[str]), _parameter("queue", _PLAIN[str]), _window("1h")],
            errors=(400,),
        ),
        "/api/v1/live": {"get": _live()},
        "/api/v1/openapi.json": _get("openapi", "This document.", {"type": "object"}, errors=()),
        "/api/v1/recover": {"post": _recover()},
        "/api/v1/quarantine/retry": {"post": _on_chosen("retry_many", "Let the chosen quarantined jobs run again.", "retried")},
        "/api/v1/quarantine/drop": {"post": _on_chosen("drop_many", "Forget the chosen quarantined jobs.", "dropped")},
        "/api/v1/quarantine/{ref}/retry": {"post": _on_quarantined("retry", "Let a quarantined job run again.", "retried")},
        "/api/v1/quarantine/{ref}/drop": {"post": _on_quarantined("drop", "Forget a quarantined job.", "dropped")},
        "/api/v1/instances/{id}/stacks": {
            "post": _on_instance("stacks", "What each thread of a worker does, and where each of its jobs waits.", _ref(Stacks), "stacks")
        },
        "/api/v1/jobs/{id}/abort": {"post": _on_instance("abort", "End the run of a job for good.", _ref(Abort), "abort")},
        "/healthz": {"get": _health("healthz", "This process answers.", 200)},
        "/readyz": {"get": _health("readyz", "Redis answers.", 200, 503)},
    }
    for name, summary in _ORDERS.items():
        paths[f"/api/v1/instances/{{id}}/{name}"] = {"post": _on_instance(name, summary, _ref(Answer), "answer")}
    for name, (member, record, summary) in _ROWS.items():
        paths[f"/api/v1/{name}"] = _get(name, summary, _page(member, record), parameters=_parameters(name), errors=(400,))
    return {
        "openapi": "3.1.0",
        "info": {"title": "async-tracker", "version": __version__, "description": "What the page of async-tracker asks and does."},
        "paths": paths,
        "security": [{"session": []}, {"token": []}],
        "components": {
            "schemas": {**{record.__name__: _record(record) for record in _RECORDS}, "Error": _error()},
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": "async_tracker", "description": "As the app around it decides."},
                "token": {"type": "http", "scheme": "bearer", "description": "The token of `async-tracker serve`."},
            },
        },
    }


def _record(record: type) -> Schema:
    hints = get_type_hints(record)
    names = [item.name for item in dataclasses.fields(record)]
    properties = {name: _schema(hints[name]) for name in names}
    if record is FunctionStats:
        properties["per_minute"] = {"type": ["number", "null"], "description": "Starts a minute, where that is known."}
    return {"type": "object", "properties": properties, "required": names}


def _schema(hint: Any) -> Schema:
    """Write a type of Python as a schema.

    >>> _schema(int | None), _schema(tuple[str, ...])
    ({'anyOf': [{'type': 'integer'}, {'type': 'null'}]}, {'type': 'array', 'items': {'type': 'string'}})
    """
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument) for argument in arguments]}
    if origin is tuple or origin is list:
        return {"type": "array", "items": _schema(arguments[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"type": "string", "enum": [str(member) for member in hint]}
    return _ref(hint)


def _ref(record: type) -> Schema:
    return {"$ref": f"#/components/schemas/{record.__name__}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _document(**members: Schema) -> Schema:
    return {"type": "object", "properties": {"version": _VERSION, **members}, "required": ["version", *members]}


def _snapshot() -> Schema:
    return {"allOf": [_document(at_ms=_AT, namespace=_PLAIN[str]), _ref(Snapshot)]}


def _page(member: str, record: type) -> Schema:
    return _document(
        at_ms=_AT,
        total={"type": "integer", "description": "How many rows pass the filters: exact."},
        sort=_PLAIN[str],
        cut={"type": "boolean", "description": "There are more rows than can be sorted so: only the first 10,000 were."},
        next_cursor={"type": ["string", "null"], "description": "Give it as `cursor` to get the next page."},
        **{member: _list(_ref(record))},
    )


def _parameters(name: str) -> list[Schema]:
    screen = SCREENS[name]
    found = [_parameter(filter_name, {"type": "string", "pattern": _PATTERNS.get(filter_name, ".*")}) for filter_name in screen.filters]
    if "since" in screen.filters:
        found = [item for item in found if item["name"] != "since"]
        found.append(_parameter("since", {"type": "string", "format": "date-time"}))
    sorts = [sign + sort for sort in screen.sorts for sign in ("", "-")]
    if screen.has_windows:
        found.append(_window(None))
    if sorts:
        found.append(_parameter("sort", {"type": "string", "enum": sorts, "default": screen.sorted_by}))
    found.append(_parameter("limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MOST, "default": LIMIT}))
    found.append(_parameter("cursor", {"type": "string", "pattern": r"^[0-9]{1,7}$"}))
    return found


def _parameter(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _window(default: str | None) -> Schema:
    schema: Schema = {"type": "string", "enum": list(WINDOWS), "description": "Up to now; without it, of all time."}
    if default is not None:
        schema |= {"default": default, "description": "Up to now."}
    return _parameter("window", schema)


def _in_path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _error() -> Schema:
    inner = {"type": "object", "properties": {"code": _PLAIN[str], "message": _PLAIN[str]}, "required": ["code", "message"]}
    return {"type": "object", "properties": {"error": inner}, "required": ["error"]}


_MEANINGS = {
    400: "The question cannot be understood; the message says what to write.",
    401: "No session and no token, or a wrong one.",
    403: "The request is not let in, or comes from another site.",
    404: "There is no such thing.",
    405: "The method, or the action, is not allowed here.",
    409: "It cannot be done as things are.",
    421: "The page is not reached under this Host.",
    422: "The body is too large.",
    429: "Too many wrong tokens.",
    503: "Redis is away, or refuses.",
}


def _answers(schema: Schema, *errors: int) -> Schema:
    found: Schema = {"200": {"description": "As asked.", "content": {"application/json": {"schema": schema}}}}
    for status in sorted({400, 401, 403, 405, 421, 429, 503, *errors}):
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        found[str(status)] = {"description": _MEANINGS[status], "content": content}
    return found


def _get(name: str, summary: str, schema: Schema, *, parameters: list[Schema] | None = None, errors: tuple[int, ...] = ()) -> Schema:
    return {"get": {"operationId": name, "summary": summary, "parameters": parameters or [], "responses": _answers(schema, *errors)}}


def _live() -> Schema:
    topic = {"name": "topic", "in": "query", "required": False, "schema": _list({"type": "string"}), "style": "form", "explode": True}
    responses = _answers({}, 400)
    responses["200"] = {
        "description": "Server-sent events: first whole pictures, then what has changed. Resumed by Last-Event-ID.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    return {
        "operationId": "live",
        "summary": "Follow screens: each topic is the name of a screen, and behind a question mark its parameters.",
        "parameters": [topic, _parameter("once", {"type": "string", "enum": ["0", "1"]})],
        "responses": responses,
    }


def _recover() -> Schema:
    said = {"dry_run": {"type": "boolean", "default": False}, "limit": {**_COUNT, "description": "So many recoveries are named at most."}}
    body = {"type": "object", "properties": {**said, **_CHOICE}, "additionalProperties": False}
    answer = _document(
        dry_run=_PLAIN[bool],
        chosen={"type": ["integer", "null"], "description": "How many orphans were chosen; null where none were."},
        total=_PLAIN[int],
        actions={"type": "object", "additionalProperties": _PLAIN[int], "description": "How many of what was done."},
        recoveries=_list(_ref(Recovery)),
    )
    return {
        "operationId": "recover",
        "summary": "Look for dead instances now and recover what they left: all of it, or what is chosen.",
        "parameters": [],
        "requestBody": {"required": False, "content": {"application/json": {"schema": body}}},
        "responses": _answers(answer, 409, 422),
    }


_COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": 10_000_000}
_CHOICE: Mapping[str, Schema] = {
    "jobs": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "The ids that are meant; or else a filter."},
    "filter": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "As the list of them is asked; {} is all. With it goes `most`, except where it is only asked what would be done.",
    },
    "most": {**_COUNT, "description": "How many a person has agreed to: where more match by now, the answer is 409 and nothing is done."},
}


def _on_chosen(name: str, summary: str, member: str) -> Schema:
    body = {"type": "object", "properties": dict(_CHOICE), "additionalProperties": False}
    stayed = {"type": "object", "properties": {"job_id": _PLAIN[str], "why": _PLAIN[str]}, "required": ["job_id", "why"]}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": _answers(_document(**{member: _list(_PLAIN[str])}, stayed=_list(stayed)), 409, 422),
    }


def _on_quarantined(name: str, summary: str, member: str) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [_in_path("ref")],
        "responses": _answers(_document(**{member: _list(_PLAIN[str])}), 404, 409, 422),
    }


_ORDERS = {
    "quiet": "Have a worker take no more jobs, and run those that it has.",
    "resume": "Have a quiet worker take jobs again.",
    "stop": "Have a worker end in order, as its library ends it.",
}


def _on_instance(name: str, summary: str, schema: Schema, member: str) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [_in_path("id")],
        "responses": _answers(_document(**{member: schema}), 404, 409, 422),
    }


def _health(name: str, summary: str, *statuses: int) -> Schema:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "parameters": [],
        "responses": {
            **{str(status): {"description": "One word.", "content": content} for status in statuses},
            "405": {"description": _MEANINGS[405], "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
        },
    }
