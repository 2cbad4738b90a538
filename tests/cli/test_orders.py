"""``quiet``, ``resume`` and ``stop`` on the command line, to instances of this process and to one that takes no orders."""

import json
from collections.abc import AsyncIterator, Callable

import anyio.to_thread
import pytest

from async_tracker import Tracker
from async_tracker.metrics.prometheus import Collector
from tests.cli.conftest import Cli
from tests.harness.inside import runtime_of
from tests.harness.wait import wait_until
from tests.metrics.scrapes import Scrape

QUICK = {"heartbeat_interval": 0.5, "heartbeat_ttl": 15.0}


async def known(tracker: Tracker) -> str:
    await wait_until(lambda: runtime_of(tracker).registration.is_registered, timeout=30.0, description="it is registered")
    return runtime_of(tracker).instance_id


@pytest.fixture
async def two(make_tracker: Callable[..., Tracker]) -> AsyncIterator[tuple[Tracker, Tracker]]:
    """Two instances, of two queues and with two labels; only the first takes orders."""
    first = make_tracker(instance_id="mail-1", **QUICK)
    second = make_tracker(instance_id="news-1", control=False, **QUICK)
    async with first.register(queue="mail"), second.register(queue="news"):
        await known(first)
        await known(second)
        yield first, second


async def test_one_is_quiet_waits_until_it_is_idle_and_resumes(
    cli: Cli, two: tuple[Tracker, Tracker], make_tracker: Callable[..., Tracker]
):
    first, _ = two
    answer = await cli.within("quiet", "--label", "mail-1", "--wait", "idle", "--json")
    assert answer.code == 0
    assert [item["outcome"] for item in (*answer.document["answers"], *answer.document["idle"])] == ["done", "done"]
    assert answer.document["standing"] == []
    assert first.is_quiet
    listed = await cli.within("ps")
    assert " quiet " in listed.out
    checked = await cli.within("check", "--instance", first.instance_id or "")
    assert (checked.code, " is quiet" in checked.out) == (0, True)
    async with make_tracker() as asking:
        scrape = Scrape(await Collector(asking).exposition())
    assert {state: scrape("instances", state=state, queue="mail") for state in ("quiet", "alive")} == {"quiet": 1.0, "alive": 0.0}
    answer = await cli.within("resume", first.instance_id or "")
    assert (answer.code, "done" in answer.out) == (0, True)
    assert not first.is_quiet
    told = await cli.within("events", "--type", "control", "--json")
    assert [event["details"]["order"] for event in told.document["events"]] == ["quiet", "idle", "resume"]
    assert all("@" in event["details"]["by"] for event in told.document["events"])


async def test_what_is_in_hand_still_is_a_bad_answer_and_the_instance_is_quiet_all_the_same(cli: Cli, two: tuple[Tracker, Tracker]):
    first, _ = two
    async with first.track("42"):
        answer = await cli.within("quiet", "mail-1", "--wait", "idle", "--timeout", "0.2")
    assert (answer.code, "1 in hand still" in answer.err) == (1, True)
    assert first.is_quiet


async def test_of_many_the_failures_are_counted(cli: Cli, two: tuple[Tracker, Tracker]):
    first, second = two
    answer = await cli.within("quiet", "--here", "--json")
    outcomes = {item["instance_id"]: item["outcome"] for item in answer.document["answers"]}
    assert (answer.code, outcomes) == (5, {first.instance_id: "done", second.instance_id: "refused"})
    assert (await cli.within("quiet", "--label", "news-1")).code == 1


async def test_where_many_are_meant_a_person_is_asked_and_without_a_terminal_yes_is_needed(cli: Cli, two: tuple[Tracker, Tracker]):
    first, _ = two
    for whom in (["--all"], ["--queue", "mail"]):
        answer = await cli.within("quiet", *whom)
        assert (answer.code, "--yes" in answer.err) == (2, True)
    assert not first.is_quiet
    assert await first.standing_orders() == []


async def test_a_beginning_that_fits_several_is_asked_about_and_not_followed_for_one_answer(
    cli: Cli, two: tuple[Tracker, Tracker], make_tracker: Callable[..., Tracker]
):
    first, _ = two
    third = make_tracker(instance_id="mail-2", **QUICK)
    async with third.register(queue="mail"):
        await known(third)
        answer = await cli.within("quiet", "mail-")
        assert (answer.code, "--yes" in answer.err) == (2, True)
        stacks = await cli.within("stacks", "mail-")
        assert (stacks.code, "mail- stands for 2 instances" in stacks.err) == (2, True)
        shown = await anyio.to_thread.run_sync(lambda: cli.on_terminal(150, "quiet", "mail-", typed="n\n"))
        assert "Quiet these 2? [y/N]" in shown
        assert (first.is_quiet, third.is_quiet) == (False, False)
        shown = await anyio.to_thread.run_sync(lambda: cli.on_terminal(150, "quiet", "mail-", typed="y\n"))
        assert shown.count("tracker.is_quiet is True: its program takes no more jobs") == 2
        assert (first.is_quiet, third.is_quiet) == (True, True)


async def test_an_order_that_stands_is_shown_until_it_is_withdrawn(cli: Cli, two: tuple[Tracker, Tracker], make_tracker):
    first, _ = two
    answer = await cli.within("quiet", "--queue", "mail", "--for", "30m", "--yes")
    assert (answer.code, "quiet stands for each instance of mail, those that register meanwhile included, for 29" in answer.err) == (
        0,
        True,
    )
    assert "quiet stands for each instance of mail" in (await cli.within("ps")).err
    assert [order["queue"] for order in json.loads((await cli.within("ps", "--json")).out)["standing"]] == ["mail"]
    found = {item["subject"]: item["remedy"] for item in (await cli.within("doctor", "--json")).document["findings"]}
    assert found["orders"] == "if that is over: async-tracker resume --queue mail"
    assert "async-tracker resume" in found[first.instance_id]
    late = make_tracker(**QUICK)
    async with late.register(queue="mail"):
        await known(late)
        await wait_until(lambda: late.is_quiet, description="it begins quiet")
        answer = await cli.within("resume", "--queue", "mail", "--yes", "--json")
        assert (answer.code, len(answer.document["answers"])) == (0, 2)
        assert (first.is_quiet, late.is_quiet) == (False, False)
    assert await first.standing_orders() == []


async def test_nobody_there_is_not_found_unless_the_order_stands(cli: Cli):
    for whom in (["--here"], ["--label", "mail-1"], ["nobody"]):
        assert (await cli.within("quiet", *whom)).code == 4
    assert (await cli.within("stop", "--all", "--yes")).code == 4
    assert (await cli.within("quiet", "--all", "--yes")).code == 0
    assert (await cli.within("resume", "--all", "--yes")).code == 0


@pytest.mark.parametrize("arguments", [[], ["mail-1", "--here"], ["--all", "--queue", "mail"], ["--all", "--for", "soon"]])
async def test_whom_it_is_for_is_said_once(cli: Cli, arguments: list[str]):
    answer = await cli.within("quiet", *arguments, "--yes")
    assert answer.code == 2
    assert "say who is meant" in answer.err or "no span of time" in answer.err


async def test_a_time_is_for_an_order_that_stands_and_not_for_instances_that_are_named(cli: Cli, two: tuple[Tracker, Tracker]):
    first, _ = two
    for whom in (["mail-1"], ["--here"], ["--label", "mail-1"]):
        answer = await cli.within("quiet", *whom, "--for", "5m")
        assert (answer.code, "stay quiet until async-tracker resume" in answer.err) == (2, True)
    assert not first.is_quiet


async def test_stop_says_what_ends(cli: Cli, two: tuple[Tracker, Tracker]):
    first, _ = two
    answer = await cli.within("stop", "mail-1")
    assert (answer.code, "tracker.is_stopping is True" in answer.out) == (0, True)
    assert first.is_stopping
