"""What a viewer of a screen is shown at one moment: made of shared readings, and compared with the moment before."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from async_tracker.errors import StorageError
from async_tracker.integrations.known import KNOWN
from async_tracker.policy import STALLED, InstanceState, takes_jobs
from async_tracker.queries.questions import Fleet, LeftBehind, Overdue
from async_tracker.records import Instance, Job, Quarantined
from async_tracker.store import keys
from async_tracker.store.run_record import job_ref
from async_tracker.web import screens, trends
from async_tracker.web.readings import Reading, Readings, unserved
from async_tracker.web.screens import Row, Wanted

_ATTENTION_MOST = 12
_NOT_WAITED_FOR = 0.1
"""Seconds after which the overview is shown without the jobs past their timeout: where jobs are very many, they come with the next."""
_BUSIEST_MOST = 8
_JOBS_OF_AN_INSTANCE_MOST = 100
_EVENTS_OF_ONE_MOST = 20
_UNREAD_IN = {"jobs": "corrupt", "instances": "unread", "orphans": "unread"}
"""Where the reading of a screen has the keys of what this version cannot read."""
_SHORT, _LAST_HOUR, _LAST_DAY = "15m", "1h", "24h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Facts by name, and rows by a key that stays the same while they are looked at, in their order."""

    facts: Row = field(default_factory=dict)
    rows: Mapping[str, Row] = field(default_factory=dict)


def keyed(rows: Sequence[Row]) -> dict[str, Row]:
    """Give each row a key: what it is about, and where that is not unique, a number behind it."""
    found: dict[str, Row] = {}
    for row in rows:
        key = "\0".join(str(row.get(name, "")) for name in ("id", "library", "function", "queue", "subject"))
        while key in found:
            key += "\0"
        found[key] = row
    return found


class Pictures:
    """Makes the pictures of one tracker. Raises StorageError where nothing can be read."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    async def head(self) -> Row:
        """Give what stands above every screen: how many of what, and how Redis is. Never raises: it is what says that Redis is away."""
        facts: Row = {"instances": None, "jobs": None}
        read = await self._perhaps("instances")
        if read is not None:
            instances: list[Instance] = read.value.instances
            facts["instances"] = len(instances)
            facts["jobs"] = sum(item.busy for item in instances if item.state != InstanceState.DEAD)
            facts["stalled"] = sum(item.state in STALLED for item in instances)
            with suppress(StorageError):
                facts["orphans"] = len((await self._left_behind(read.value)).orphans)
        quarantined = await self._perhaps("quarantined")
        facts |= {
            "quarantined": len(quarantined.value) if quarantined is not None else None,
        }
        outage = self._readings.outage
        facts["away"] = None if outage is None else {"since": outage.since_ms, "why": outage.why}
        return facts

    async def make(self, asked: Wanted) -> Picture:
        """Make the picture of what is asked for."""
        if asked.screen == "overview":
            return await self._overview()
        if asked.screen == "instance":
            return await self._instance(dict(asked.filters)["id"])
        if asked.screen == "job":
            return await self._job(dict(asked.filters)["id"])
        if asked.screen == "function":
            return await self._function(**dict(asked.filters), window=asked.window)
        return await self._table(asked)

    async def _table(self, asked: Wanted) -> Picture:
        screen = screens.SCREENS[asked.screen]
        reading = await self._readings.get(*screens.reading_of(asked))
        found = await screens.page(asked, reading.value)
        facts: Row = {"total": found.total, "every": found.every, "facets": found.facets, "cut": found.is_cut}
        if asked.screen == "functions":
            rates, started = self._readings.per_minute(), self._readings.trends(asked.window)
            rows = [
                screens.function_row(item, rates) | {"trend": trends.drawn(started.get((item.function, item.queue), ()))}
                for item in found.items
            ]
        elif asked.screen == "queues":
            working = screens.working_on((await self._readings.get("instances")).value.instances)
            now_ms, flow = reading.at_ms, await self._flows()
            rows = [
                screens.queue_row(item, working.get((item.library, item.queue), ()), now_ms=now_ms)
                | trends.flow_row(item, flow.get(item.queue), now_ms=now_ms)
                for item in found.items
            ]
        elif asked.screen == "jobs":
            usual = await self._usual()
            unread = set(reading.value.corrupt)
            rows = [{**_job_row(item, unread), "usual": usual.get((item.function, item.queue))} for item in found.items]
        else:
            rows = [screen.row(item) for item in found.items]
        if asked.screen == "doctor":
            facts["at"] = reading.at_ms
        if asked.screen in _UNREAD_IN and (corrupt := getattr(reading.value, _UNREAD_IN[asked.screen])):
            facts["corrupt"], facts["corrupt_more"] = list(corrupt[:_ATTENTION_MOST]), max(len(corrupt) - _ATTENTION_MOST, 0)
        return Picture(facts=facts, rows=keyed(rows))

    async def _overview(self) -> Picture:
        fleet: Fleet = (await self._readings.get("instances")).value
        instances = fleet.instances
        left = await self._left_behind(fleet)
        quarantined, queues, stats = [await self._perhaps(kind) for kind in ("quarantined", "queues", "stats")]
        overdue = await self._readings.soon("overdue", within=_NOT_WAITED_FOR)
        live = [item for item in instances if item.state != InstanceState.DEAD]
        facts: Row = {
            "states": screens.counted(str(item.state) for item in instances),
            "busy": sum(item.busy for item in live),
            "slots": sum(item.concurrency or 0 for item in live if takes_jobs(item.state)),
            "orphans": len(left.orphans),
            "quarantined": None if quarantined is None else len(quarantined.value),
            "jobs_seen": overdue is not None,
        }
        lost = Counter(orphan.instance_id for orphan in left.orphans)
        # Of very many only some are shown, and of these alone rows are made.
        attention: list[Callable[[], Row]] = [partial(_stalled, item) for item in instances if item.state in STALLED]
        attention += [partial(_dead, item, lost[item.instance_id]) for item in instances if item.state == InstanceState.DEAD]
        if queues is not None:
            attention += [partial(_unserved, item) for item in unserved(queues.value, instances)]
            facts |= self._oldest(queues)
        if overdue is not None:
            attention += [partial(dict, row) for row in _overdue(overdue.value)]
        unread = {*fleet.unread, *left.unread, *(overdue.value.unread if overdue is not None else ())}
        if unread:
            attention.append(partial(dict, {"kind": "another_version", "id": min(unread), "more": len(unread)}))
        if quarantined is not None:
            attention += [partial(_quarantined, item) for item in reversed(quarantined.value)]
        facts["attention"] = [make() for make in attention[:_ATTENTION_MOST]]
        facts["attention_more"] = max(len(attention) - _ATTENTION_MOST, 0)
        if stats is not None:
            facts |= await self._counted(stats)
        return Picture(facts=facts)

    async def _counted(self, stats: Reading) -> Row:
        """Say how much is going on: just now by the counters of all time, and in the last hour by the history."""
        rates = self._readings.per_minute()
        last_hour, last_day = await self._perhaps("window", _LAST_HOUR), await self._perhaps("window", _LAST_DAY)
        history = await self._perhaps("history", _LAST_HOUR, None, None)
        known = (last_hour or stats).value.functions
        functions = sorted(known, key=lambda item: (-rates.get((item.function, item.queue), 0), -item.started))
        names = ("function", "queue", "rate", "started", "failed_share", "run", "run_time_p50", "run_time_p95", "run_time_p99")
        busiest = [screens.function_row(item, rates) for item in functions[:_BUSIEST_MOST]]
        for row in busiest:
            row["rate"] = rates.get((row["function"], row["queue"]), row["rate"])
        return {
            "points": [trends.point_row(point) for point in history.value.points] if history is not None else [],
            "deploys": trends.deploy_rows(history.value) if history is not None else [],
            "hour": None if last_hour is None else trends.totals_row(last_hour.value),
            "day": None if last_day is None else trends.totals_row(last_day.value),
            "rate": round(sum(rates.values()), 1) if rates else None,
            "busiest": [{name: row[name] for name in names if name in row} for row in busiest],
        }

    @staticmethod
    def _oldest(queues: Reading) -> Row:
        waiting = [item for item in queues.value if item.oldest_wait is not None]
        oldest = max(waiting, key=lambda item: item.oldest_wait, default=None)
        due = sum(item.due for item in queues.value)
        if oldest is None:
            return {"due": due, "oldest": None}
        return {"due": due, "oldest": {"since": round((queues.at_ms - oldest.oldest_wait * 1000) / 100) * 100, "queue": oldest.queue}}

    async def _instance(self, instance_id: str) -> Picture:
        fleet: Fleet = (await self._readings.get("instances")).value
        instances = fleet.instances
        item = next((item for item in instances if item.instance_id == instance_id), None)
        if item is None:
            is_unread = keys.instance(instance_id) in fleet.unread
            return Picture(facts={"missing": True, "unread": is_unread, "events": await self._events("instance_id", instance_id)})
        if item.state == InstanceState.DEAD:
            left = await self._left_behind(fleet)
            rows: list[Row] = [screens.orphan_row(orphan) for orphan in left.orphans if orphan.instance_id == instance_id]
        else:
            snapshot = (await self._readings.get("snapshot")).value
            rows = [screens.job_row(job) for job in snapshot.jobs if job.instance_id == instance_id]
        one = screens.instance_details(item)
        if item.state != InstanceState.DEAD:
            one["busy"] = len(rows)  # its beat told how many it had then: of one screen there is one number
        facts = {"one": one, "total": len(rows), "events": await self._events("instance_id", instance_id)}
        return Picture(facts=facts, rows=keyed(rows[:_JOBS_OF_AN_INSTANCE_MOST]))

    async def _job(self, job_id: str) -> Picture:
        snapshot = (await self._readings.get("snapshot")).value
        unread = set(snapshot.corrupt)
        rows = [{**screens.job_details(item), **_job_row(item, unread)} for item in snapshot.jobs if item.job_id == job_id]
        refs = [job_id, *(job_ref(library.name, job_id) for library in KNOWN)]
        quarantined = await self._perhaps("quarantined")
        pills = [item for item in quarantined.value if item.job_id == job_id] if quarantined is not None else []
        return Picture(
            facts={
                "missing": not rows,
                "unread": any(keys.job(ref) in unread for ref in refs),
                "orphaned": [screens.orphan_row(item) for item in snapshot.orphans if item.job_id == job_id],
                "pills": [screens.quarantined_row(item) for item in pills],
                "events": await self._events("job_id", job_id),
            },
            rows=keyed(rows),
        )

    async def _function(self, function: str, *, window: str, queue: str | None = None) -> Picture:
        history, stats = await self._readings.get("history", window, function, queue), await self._readings.get("window", window)
        rows = [item for item in stats.value.functions if item.function == function and queue in (None, item.queue)]
        events = await self._events("function", function)
        points = [trends.point_row(point) for point in history.value.points]
        one = [screens.function_row(item, {}) for item in rows]
        deploys = trends.deploy_rows(history.value)
        facts: Row = {"points": points, "deploys": deploys, "step": history.value.step * 1000, "one": one, "events": events}
        return Picture(facts=facts)

    async def _flows(self) -> dict[str, trends.Flow]:
        last, history = await self._perhaps("window", _SHORT), await self._perhaps("history", _SHORT, None, None)
        return trends.flows(last.value, history.value) if last is not None and history is not None else {}

    async def _usual(self) -> dict[tuple[str | None, str | None], float | None]:
        """Tell within how many seconds nearly all runs of each function have ended in the last hour: the 95th percentile."""
        last_hour = await self._perhaps("window", _LAST_HOUR)
        functions = last_hour.value.functions if last_hour is not None else ()
        return {(item.function, item.queue): trends.rounded(item.run_time_p95) for item in functions if item.run_time_p95 is not None}

    async def _events(self, name: str, wanted: str) -> list[Row]:
        found = (await self._readings.get("events")).value
        return [screens.event_row(item) for item in found if getattr(item, name) == wanted][:_EVENTS_OF_ONE_MOST]

    async def _left_behind(self, fleet: Fleet) -> LeftBehind:
        """Read what dead instances have left, where there can be any: one whose record cannot be read may be dead too."""
        if not fleet.unread and not any(item.state == InstanceState.DEAD for item in fleet.instances):
            return LeftBehind(orphans=[], unread=[])
        found: LeftBehind = (await self._readings.get("orphans")).value
        return found

    async def _perhaps(self, *kind: str | None) -> Reading | None:
        """Read what a screen can do without: the last that is known where this fails, and None where nothing is."""
        try:
            return await self._readings.get(*kind)
        except StorageError:
            return self._readings.last(*kind)


def _stalled(item: Instance) -> Row:
    row = screens.instance_row(item)
    return {"kind": row["state"], **{name: row[name] for name in ("id", "label", "busy", "beat", "blocked", "line", "why")}}


def _dead(item: Instance, orphans: int) -> Row:
    row = screens.instance_row(item)
    return {"kind": "dead", "orphans": orphans, **{name: row[name] for name in ("id", "label", "beat", "died", "why")}}


def _job_row(item: Job, unread: Collection[str]) -> Row:
    """Say what the table tells of a job; of an instance whose record cannot be read it is not known how that is."""
    row = screens.job_row(item)
    return {**row, "state": "another_version"} if keys.instance(item.instance_id) in unread else row


def _overdue(found: Overdue) -> list[Row]:
    """Name those that are past their timeout by most, and say how many more there are."""
    names = ("id", "function", "instance", "started", "timeout")
    rows = [{"kind": "overdue", **{name: screens.job_row(job)[name] for name in names}} for job in found.jobs]
    more = found.total - len(rows)
    return [*rows, {"kind": "overdue", "id": "", "more": more}] if more else rows


def _unserved(item: Any) -> Row:
    return {"kind": "unserved", "id": item.queue, "library": item.library, "due": item.due}


def _quarantined(item: Quarantined) -> Row:
    return {"kind": "quarantined", **screens.quarantined_row(item)}


def changes(before: Picture | None, now: Picture, numbers: dict[str, int]) -> Row | None:
    """Say what has changed since the picture before; None where nothing has. Rows go by short numbers, which are given here.

    >>> numbers = {}
    >>> changes(None, Picture(facts={"total": 1}, rows={"a": {"id": "a", "busy": 1}}), numbers)
    {'whole': True, 'facts': {'total': 1}, 'order': [0], 'rows': {0: {'id': 'a', 'busy': 1}}}
    >>> changes(Picture(rows={"a": {"id": "a", "busy": 1}}), Picture(rows={"a": {"id": "a", "busy": 2}}), numbers)
    {'rows': {0: {'busy': 2}}}
    """
    if before is None:
        numbers.clear()
    gone = [key for key in numbers if key not in now.rows]
    for key in gone:
        del numbers[key]
    next_number = max(numbers.values(), default=-1) + 1
    for key in now.rows:
        if key not in numbers:
            numbers[key] = next_number
            next_number += 1
    old_facts, old_rows = (before.facts, before.rows) if before is not None else ({}, {})
    facts = {name: value for name, value in now.facts.items() if name not in old_facts or old_facts[name] != value}
    facts |= {name: None for name in old_facts if name not in now.facts}
    rows = {}
    for key, row in now.rows.items():
        old = old_rows.get(key, {})
        changed = {name: value for name, value in row.items() if name not in old or old[name] != value}
        if changed:
            rows[numbers[key]] = changed
    said: Row = {"whole": True} if before is None else {}
    if facts:
        said["facts"] = facts
    if before is None or list(now.rows) != list(old_rows):
        said["order"] = [numbers[key] for key in now.rows]
    if rows:
        said["rows"] = rows
    return said or None
