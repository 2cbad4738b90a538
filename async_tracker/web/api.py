"""The questions of the API: the documents that `async-tracker --json` gives, in pages."""

from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from async_tracker.errors import CorruptRecord, StorageError, StorageUnavailable
from async_tracker.web import screens
from async_tracker.web.answers import Problem, document
from async_tracker.web.readings import Reading, Readings
from async_tracker.web.screens import Wanted
from async_tracker.web.spans import WINDOWS

LISTS = {name: name for name in ("instances", "jobs", "orphans", "queues", "events")} | {"quarantine": "quarantined"}
"""Screens that are lists of records, and what their documents call the rows."""


def query_of(request: Request) -> list[tuple[str, str]]:
    """Read the query string; what is no UTF-8 in it is kept as it came."""
    return parse_qsl(request.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True, errors="surrogateescape")


def refuse_query(request: Request) -> None:
    """Raise Problem where a question was given parameters and takes none."""
    found = [name for name, _ in query_of(request)]
    if found:
        raise Problem(400, "bad_request", f"unknown parameter {found[0]!r}: this takes none")


def _at(reading: Reading) -> dict[str, int]:
    return {"at_ms": reading.at_ms}


class Api:
    """Answers the questions. What is read is shared with the live page, so that no number of programs asks Redis more often."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._tracker = readings.tracker

    async def snapshot(self, request: Request) -> Response:
        """Give instances, jobs and orphans, as `Tracker.snapshot` does."""
        refuse_query(request)
        reading = await self._readings.get("snapshot")
        return document({**_at(reading), "namespace": self._tracker.namespace, **reading.value.to_dict()})

    async def rows(self, request: Request, screen: str) -> Response:
        """Give one page of a list: how many rows there are, these, and where the next page begins."""
        asked = screens.wanted(screen, query_of(request))
        reading = await self._readings.get(*screens.reading_of(asked))
        found = await screens.page(asked, reading.value)
        return document({**_at(reading), **_paging(asked, found), LISTS[screen]: [item.to_dict() for item in found.items]})

    async def functions(self, request: Request) -> Response:
        """Give one page of the counters by function, with how many start a minute where that is known."""
        asked = screens.wanted("functions", query_of(request))
        reading = await self._readings.get(*screens.reading_of(asked))
        found = await screens.page(asked, reading.value)
        rows = [item.to_dict() for item in found.items]
        if not asked.window:
            rates = self._readings.per_minute()
            rows = [{**row, "per_minute": rates.get((row["function"], row["queue"]))} for row in rows]
        return document({**_at(reading), **_paging(asked, found), "functions": rows})

    async def history(self, request: Request) -> Response:
        """Give what was, in steps: of one function, one queue, or all of them."""
        given = query_of(request)
        for name, _ in given:
            if name not in ("function", "queue", "window"):
                raise Problem(400, "bad_request", f"history knows no {name!r}: it takes function, queue and window")
        asked = dict(given)
        window = asked.get("window") or "1h"
        if window not in WINDOWS:
            raise Problem(400, "bad_request", f"window={window}: write one of {', '.join(WINDOWS)}")
        reading = await self._readings.get("history", window, asked.get("function") or None, asked.get("queue") or None)
        return document({**_at(reading), **reading.value.to_dict()})

    async def instance(self, request: Request, instance_id: str) -> Response:
        """Give one instance and its jobs."""
        refuse_query(request)
        reading = await self._readings.get("snapshot")
        found = next((item for item in reading.value.instances if item.instance_id == instance_id), None)
        if found is None:
            raise Problem(404, "not_found", f"there is no instance {instance_id!r}")
        jobs = [item for item in reading.value.jobs if item.instance_id == instance_id]
        return document({**_at(reading), "instance": found, "jobs": jobs})

    async def job(self, request: Request, job_id: str) -> Response:
        """Give the newest run in flight of one job."""
        refuse_query(request)
        try:
            found = await self._tracker.job(job_id)
        except CorruptRecord as exc:
            raise Problem(409, "corrupt_record", str(exc)) from exc
        if found is None:
            raise Problem(404, "not_found", f"job {job_id!r} is not in flight")
        return document({"job": found})

    async def doctor(self, request: Request) -> Response:
        """Give the findings of `async-tracker doctor`."""
        refuse_query(request)
        reading = await self._readings.get("doctor")
        healthy = all(str(finding.status) != "problem" for finding in reading.value)
        return document({**_at(reading), "healthy": healthy, "namespace": self._tracker.namespace, "findings": reading.value})


def _paging(asked: Wanted, found: screens.Page) -> dict[str, Any]:
    end = asked.offset + len(found.items)
    reachable = min(found.total, screens.SORTED_AT_MOST) if found.is_cut else found.total
    return {"total": found.total, "sort": asked.sort, "cut": found.is_cut, "next_cursor": str(end) if end < reachable else None}


def live_topics(request: Request, *, most: int) -> tuple[list[tuple[str, Wanted]], bool]:
    """Read which screens a stream shall follow, and whether it shall end after the first picture. Raises Problem."""
    topics: dict[str, Wanted] = {}
    once = False
    for name, value in query_of(request):
        if name == "topic":
            topics[value] = screens.topic(value)
        elif name == "once":
            once = value not in ("", "0")
        else:
            raise Problem(400, "bad_request", f"live knows no {name!r}: it takes topic, which may be given several times, and once")
    if len(topics) > most:
        raise Problem(400, "bad_request", f"{len(topics)} topics: a stream follows {most} at most")
    return list(topics.items()), once


def storage_problem(exc: StorageError) -> Problem:
    """Say that Redis is away, or refuses."""
    if isinstance(exc, StorageUnavailable):
        return Problem(503, "redis_unavailable", f"Redis cannot be reached: {exc}", headers={"retry-after": "2"})
    return Problem(503, "redis_refuses", f"Redis refuses: {exc}", headers={"retry-after": "10"})
