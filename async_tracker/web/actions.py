"""What a person can do from the page: recover, decide about poison pills, order workers. Each leaves an event that says who."""

import json
import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from async_tracker.errors import OrderFailed, StorageError, TrackerError, UnsupportedControl
from async_tracker.records import AbortOutcome, Answer, OrderOutcome
from async_tracker.web.access import Viewer
from async_tracker.web.answers import Problem, document
from async_tracker.web.past import note_action
from async_tracker.web.readings import Readings

logger = logging.getLogger("async_tracker")

_BODY_MOST = 10_000


class Actions:
    """Carries out actions. Whether a viewer may was decided before."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._tracker = readings.tracker

    async def recover(self, request: Request, viewer: Viewer) -> Response:
        """Look for dead instances and recover what they left; with ``{"dry_run": true}`` only tell what would be done."""
        options = await _options(request)
        dry_run = options.pop("dry_run", False)
        if options or not isinstance(dry_run, bool):
            raise Problem(400, "bad_request", 'write {"dry_run": true}, {"dry_run": false} or nothing')
        done = await self._tracker.recover(dry_run=dry_run)
        if not dry_run:
            self._readings.forget()
            await self._note("recover", viewer, "done", jobs=len(done))
        return document({"dry_run": dry_run, "recoveries": done})

    async def retry(self, request: Request, viewer: Viewer, ref: str) -> Response:
        """Let a quarantined job run again, with all its tries."""
        await _no_options(request)
        await self._known(ref)
        if not await self._tracker.retry_quarantined(ref):
            await self._note("retry", viewer, "refused", job_id=ref)
            raise Problem(409, "enqueued_anew", f"job {ref!r} stays in quarantine: its id was enqueued anew meanwhile")
        self._readings.forget()
        await self._note("retry", viewer, "done", job_id=ref)
        return document({"retried": [ref]})

    async def drop(self, request: Request, viewer: Viewer, ref: str) -> Response:
        """Forget a quarantined job, its payload included."""
        await _no_options(request)
        await self._known(ref)
        await self._tracker.drop_quarantined(ref)
        self._readings.forget()
        await self._note("drop", viewer, "done", job_id=ref)
        return document({"dropped": [ref]})

    async def order(self, request: Request, viewer: Viewer, instance_id: str, name: str) -> Response:
        """Have a worker take no more jobs, take them again, or end in order. The event of an order is the one that the tracker writes."""
        await _no_options(request)
        tracker = self._tracker
        orders: dict[str, Any] = {"quiet": tracker.quiet, "resume": tracker.resume, "stop": tracker.stop}
        logger.info("%s by %s from %s", name, viewer.name, viewer.peer, extra={"instance_id": instance_id})
        try:
            answer: Answer = await orders[name](instance_id, by=_who(viewer))
        except UnsupportedControl as exc:
            raise Problem(409, "unsupported", str(exc)) from exc
        self._readings.forget()
        if answer.outcome is not OrderOutcome.DONE:
            raise _not_done(answer.outcome, f"{instance_id}: {answer.says}")
        return document({"answer": answer})

    async def stacks(self, request: Request, viewer: Viewer, instance_id: str) -> Response:
        """Tell what every thread of a worker does, and at which line each of its jobs waits."""
        await _no_options(request)
        try:
            found = await self._tracker.stacks(instance_id, by=_who(viewer))
        except OrderFailed as exc:
            raise _not_done(exc.outcome, str(exc)) from exc
        return document({"stacks": found})

    async def abort(self, request: Request, viewer: Viewer, job_id: str) -> Response:
        """End the run of a job for good, and tell what came of it within ten seconds or so."""
        await _no_options(request)
        logger.info("abort by %s from %s", viewer.name, viewer.peer, extra={"job_id": job_id})
        try:
            found = await self._tracker.abort(job_id, by=_who(viewer))
        except UnsupportedControl as exc:
            raise Problem(409, "unsupported", str(exc)) from exc
        except OrderFailed as exc:
            raise _not_done(exc.outcome, str(exc)) from exc
        self._readings.forget()
        if found.outcome is AbortOutcome.REFUSED:
            raise Problem(404, "not_found", f"{job_id}: {found.says}")
        return document({"abort": found})

    async def _known(self, ref: str) -> None:
        if all(item.job_id != ref for item in await self._tracker.quarantined()):
            raise Problem(404, "not_found", f"job {ref!r} is not quarantined")

    async def _note(self, action: str, viewer: Viewer, outcome: str, **facts: Any) -> None:
        logger.info("%s by %s from %s: %s", action, viewer.name, viewer.peer, outcome, extra=facts)
        try:
            await note_action(self._tracker, action, by=viewer.name, peer=viewer.peer, outcome=outcome, **facts)
        except StorageError as exc:  # what was done is done: the answer must not say that it was not
            logger.warning("the event of %s by %s could not be written: %s", action, viewer.name, exc)


def _who(viewer: Viewer) -> str:
    return f"{viewer.name} at {viewer.peer}"


def _not_done(outcome: str, says: str) -> Problem:
    if outcome == OrderOutcome.NOT_FOUND:
        return Problem(404, "not_found", says)
    return Problem(409, str(outcome), says)


def tracker_problem(exc: TrackerError) -> Problem:
    """Say why the tracker refused what was asked."""
    return Problem(409, "refused", str(exc))


async def _options(request: Request) -> dict[str, Any]:
    """Read the body of an action: nothing, or a JSON object. Raises Problem."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_MOST:
            raise Problem(422, "too_large", f"the body is longer than {_BODY_MOST} bytes")
    if not body:
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Problem(400, "bad_request", "the body is no JSON") from exc
    if not isinstance(found, dict):
        raise Problem(400, "bad_request", "the body must be a JSON object")
    return found


async def _no_options(request: Request) -> None:
    if await _options(request):
        raise Problem(400, "bad_request", "this action takes no options: send no body")
