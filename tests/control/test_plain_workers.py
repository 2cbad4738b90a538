"""Workers of `Tracker.register`, which do themselves what they are told; and what everybody may do wrong who gives orders."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from async_tracker import ConfigError, InstanceState, OrderOutcome, Tracker, TrackerError
from async_tracker.config import settings_from_env
from tests.harness.inside import runtime_of
from tests.harness.wait import wait_until
from tests.story.snippets import snippet

PAGE = "docs/orders.md"
LONG = 30.0


@pytest.fixture
async def registered(make_tracker: Callable[..., Tracker]) -> AsyncIterator[Tracker]:
    tracker = make_tracker(heartbeat_interval=0.5)
    async with tracker.register(queue="mail"):
        await wait_until(lambda: runtime_of(tracker).registration.is_registered, timeout=LONG, description="it is registered")
        yield tracker


def page(name: str, **given: Any) -> dict[str, Any]:
    found: dict[str, Any] = dict(given)
    exec(compile(snippet(PAGE, name).text, name, "exec"), found)
    return found


async def test_a_program_of_its_own_is_quiet_resumes_and_stops_as_the_page_has_it(registered: Tracker, observer: Tracker):
    done: list[str] = []
    jobs: asyncio.Queue[str] = asyncio.Queue()

    async def run(job: str) -> None:
        async with registered.track(job):
            done.append(job)

    instance_id = registered.instance_id or ""
    task = asyncio.create_task(page("patient.py", run=run)["work"](registered, jobs))
    jobs.put_nowait("first")
    await wait_until(lambda: done == ["first"], description="it works")
    answer = await observer.quiet(instance_id, wait=LONG)
    assert answer.says == "tracker.is_quiet is True: its program takes no more jobs"
    await asyncio.wait_for(registered.wait_quiet(), LONG)
    jobs.put_nowait("the one it waited for")
    await wait_until(lambda: done[1:] == ["the one it waited for"], description="what it had asked for already")
    jobs.put_nowait("later")
    instance = await observer.instance(instance_id)
    assert instance is not None
    assert instance.state is InstanceState.QUIET
    await observer.resume(instance_id, wait=LONG)
    await wait_until(lambda: done[2:] == ["later"], description="it works again")
    answer = await observer.stop(instance_id, wait=LONG)
    assert answer.says == "tracker.is_stopping is True: its program ends when it is done"
    await asyncio.wait_for(registered.wait_stopping(), LONG)
    assert (registered.is_stopping, registered.is_quiet) == (True, True)
    assert (await observer.stop(instance_id, wait=LONG)).says == "it was told to stop before"
    refused = await observer.resume(instance_id, wait=LONG)
    assert (refused.outcome, refused.says) == (OrderOutcome.REFUSED, "it is shutting down, and takes no more jobs")
    assert (await observer.instances())[0].state is InstanceState.QUIET  # it sweeps, and its death counts, until it really leaves
    jobs.put_nowait("the last")
    await asyncio.wait_for(task, LONG)


async def test_a_queue_is_left_by_its_workers_as_the_page_has_it(registered: Tracker, observer: Tracker, capsys: Any):
    work = page("orders.py")["empty_the_queue_of_workers"]
    await work(observer)
    assert capsys.readouterr().out == ""
    assert not registered.is_quiet
    told = [(event.details["order"], event.details["by"]) for event in await observer.recent_events() if event.type == "control"]
    assert told[0] == ("quiet", "ann")
    assert [order for order, _ in told] == ["quiet", "quiet", "idle", "resume"]


async def test_waiting_until_it_is_idle_ends_when_its_job_does_or_the_time_is_over(registered: Tracker, observer: Tracker):
    instance_id = registered.instance_id or ""
    async with registered.track("42"):
        (answer,) = await observer.wait_until_idle(instance_id, timeout=0.0)
        assert (answer.outcome, answer.says, answer.details) == (OrderOutcome.FAILED, "1 in hand still", {"in_hand": 1})
        waiting = asyncio.create_task(observer.wait_until_idle(instance_id, timeout=LONG))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    (answer,) = await waiting
    assert (answer.outcome, answer.says) == (OrderOutcome.DONE, "nothing is in hand")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "write whom it is for"),
        ({"instance_id": "a", "queue": "mail"}, "write whom it is for"),
        ({"instance_id": ["a"], "everywhere": True}, "write whom it is for"),
        ({"queue": 7}, "write names, as text"),
        ({"instance_id": [7]}, "write names, as text"),
        ({"everywhere": True, "stands_for": -1}, "write a number of seconds"),
        ({"everywhere": True, "cron": "no"}, "write True or False"),
        ({"instance_id": "a", "wait": float("inf")}, "write a number of seconds"),
        ({"instance_id": "a", "by": 7}, "write names, as text"),
    ],
)
async def test_an_order_that_cannot_work_is_refused_before_anything_is_asked(observer: Tracker, given: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        await observer.quiet(**given)
    assert await observer.standing_orders() == []


@pytest.mark.parametrize("control", ["quiet", {"quiet", "halt"}, 1, [7]])
def test_a_setting_that_names_no_orders_is_refused(control: Any):
    with pytest.raises(ConfigError, match=r"control|unknown order 'halt'"):
        Tracker(control=control)


def test_which_orders_are_taken_can_be_said_in_a_variable():
    assert settings_from_env({"TRACKER_CONTROL": "no"}) == {"control": False}
    assert settings_from_env({"TRACKER_CONTROL": "quiet, resume"}) == {"control": frozenset({"quiet", "resume"})}
    with pytest.raises(ConfigError, match="TRACKER_CONTROL=quiet,resume"):
        settings_from_env({"TRACKER_CONTROL": ""})


async def test_what_is_awaited_of_an_instance_needs_one(tracker: Tracker):
    for method in (tracker.wait_quiet, tracker.wait_resumed, tracker.wait_stopping):
        with pytest.raises(TrackerError, match=r"needs an instance in this event loop"):
            await method()
    assert (tracker.is_quiet, tracker.is_stopping) == (False, False)
