"""What a person can do from the page: recover, decide about poison pills, order workers. Each leaves an event that says who."""

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from starlette.requests import Request
from starlette.responses import Response

from async_tracker.errors import OrderFailed, StorageError, TrackerError, UnsupportedControl
from async_tracker.records import AbortOutcome, Answer, OrderOutcome
from async_tracker.web.access import Viewer
from async_tracker.web.answers import Problem, document
from async_tracker.web.past import note_action
from async_tracker.web.readings import Readings
from async_tracker.web.screens import Wanted, counted, matching, wanted

logger = logging.getLogger("async_tracker")

_BODY_MOST = 100_000
_CHOICE = '"jobs": [their ids], or "filter": {as the screen is asked, {} for all} and "most": how many were agreed to'
_DECIDED = {"retry": "retried", "drop": "dropped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rows of a screen an action is about: those of these ids, or those that pass its filters."""

    screen: str
    jobs: tuple[str, ...] | None = None
    asked: Wanted | None = None
    most: int | None = None
    """The number that a person has agreed to: where more pass the filters by now, nothing is done."""

    @classmethod
    def taken_from(cls, options: dict[str, Any], screen: str) -> Self | None:
        """Take the choice out of the body of an action; None where there is none. Raises Problem."""
        given = {name: options.pop(name) for name in ("jobs", "filter", "most") if name in options}
        jobs, filters, most = (given.get(name) for name in ("jobs", "filter", "most"))
        if not given:
            return None
        if isinstance(jobs, list) and given.keys() == {"jobs"} and jobs and all(isinstance(job_id, str) for job_id in jobs):
            return cls(screen=screen, jobs=tuple(dict.fromkeys(jobs)))
        if jobs is not None or not isinstance(filters, dict) or not (most is None or _is_count(most)):
            raise Problem(400, "bad_request", f"write {_CHOICE}")
        if not all(isinstance(value, str) for value in filters.values()):
            raise Problem(400, "bad_request", "the values of a filter are texts, as in a query string")
        query = [(name, value) for name, value in filters.items() if name not in ("sort", "cursor", "limit")]
        return cls(screen=screen, asked=wanted(screen, query), most=most)

    async def ids(self, read: Callable[[], Awaitable[Sequence[Any]]], *, is_question: bool = False) -> list[str]:
        """Name the jobs that are meant; ``read`` reads the rows, where there are filters. Raises Problem where more pass these than a
        person has agreed to."""
        if self.asked is None:
            return list(self.jobs or ())
        if self.most is None and not is_question:
            raise Problem(400, "bad_request", 'a filter needs "most": how many it chose when that was agreed to')
        found = await matching(self.asked, await read())
        if self.most is not None and len(found) > self.most:
            raise Problem(409, "more_match", f"{len(found)} match by now, and not {self.most}: look again. Nothing was done")
        return [item.job_id for item in found]

    def __str__(self) -> str:
        """Say it for an event: a few words, however many jobs."""
        if self.asked is None:
            return "ticked"
        return ", ".join(f"{name}={value}" for name, value in self.asked.filters) or "all"


class Actions:
    """Carries out actions. Whether a viewer may was decided before."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._tracker = readings.tracker

    async def recover(self, request: Request, viewer: Viewer) -> Response:
        """Look for dead instances and recover what they left, all or what is chosen; with ``dry_run`` only tell what would be done."""
        options = await _options(request)
        choice = Choice.taken_from(options, "orphans")
        dry_run, limit = options.pop("dry_run", False), options.pop("limit", None)
        if options or not isinstance(dry_run, bool) or not (limit is None or _is_count(limit)):
            raise Problem(400, "bad_request", f'write {{"dry_run": true}} or false, "limit" (how many recoveries are named), and {_CHOICE}')
        only = None if choice is None else await choice.ids(self._tracker.orphans, is_question=dry_run)
        done = await self._tracker.recover(dry_run=dry_run, only=only)
        if not dry_run:
            self._readings.forget()
            await self._note("recover", viewer, "done", jobs=len(done), chosen=str(choice or "all"))
        actions = counted(str(item.action) for item in done)
        chosen = None if only is None else len(only)
        return document({"dry_run": dry_run, "chosen": chosen, "total": len(done), "actions": actions, "recoveries": done[:limit]})

    async def retry_many(self, request: Request, viewer: Viewer) -> Response:
        """Let the chosen quarantined jobs run again; those whose id was enqueued anew meanwhile stay."""
        return await self._decide(request, viewer, "retry")

    async def drop_many(self, request: Request, viewer: Viewer) -> Response:
        """Forget the chosen quarantined jobs, their payloads included."""
        return await self._decide(request, viewer, "drop")

    async def _decide(self, request: Request, viewer: Viewer, action: str) -> Response:
        options = await _options(request)
        choice = Choice.taken_from(options, "quarantine")
        if choice is None or options:
            raise Problem(400, "bad_request", f"write {_CHOICE}")
        decide = {"retry": self._tracker.retry_quarantined, "drop": self._tracker.drop_quarantined}[action]
        done: list[str] = []
        stayed: list[dict[str, str]] = []
        try:
            for job_id in await choice.ids(self._tracker.quarantined):
                try:
                    why_not = "" if await decide(job_id) or action == "drop" else "its id was enqueued anew meanwhile"
                except StorageError:
                    raise
                except TrackerError as exc:
                    why_not = str(exc)
                if why_not:
                    stayed.append({"job_id": job_id, "why": why_not})
                else:
                    done.append(job_id)
        finally:  # what was done so far is done, whatever came then
            self._readings.forget()
            await self._note(action, viewer, "done" if done else "refused", jobs=len(done), stayed=len(stayed), chosen=str(choice))
        return document({_DECIDED[action]: done, "stayed": stayed})

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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 10_000_000


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
