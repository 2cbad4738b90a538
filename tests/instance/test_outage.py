"""What the journal makes of thousands of runs at once, and of an outage that outlasts what it can remember."""

import asyncio

from async_tracker import Tracker
from async_tracker.instance.journal import BATCH, ENDED_KEPT
from async_tracker.store.scripts import SCRIPTS
from tests.harness.inside import runtime_of
from tests.harness.resp import Command
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until


def is_write(command: Command) -> bool:
    return len(command) > 1 and command[1] in (SCRIPTS["write"].sha.encode(), SCRIPTS["write"].text.encode())


async def hold(tracker: Tracker, job_id: str, over: asyncio.Event) -> None:
    async with tracker.track(job_id, function="send_email", queue="mail"):
        await over.wait()


async def test_thousands_of_starts_at_once_are_written_in_one_round_trip(wire, make_tracker, tracker):
    over = asyncio.Event()
    async with make_tracker(redis_options={"url": wire.url}, **QUIET) as busy, busy.register():
        wire.delay(to_client=2.0)
        tasks = [asyncio.create_task(hold(busy, f"{number}", over)) for number in range(4 * BATCH)]
        await wait_until(lambda: len([sent for sent in wire.commands if is_write(sent)]) == 4, description="every batch is on its way")
        assert not any(run.stored for run in runtime_of(busy).journal.runs()), "an answer was awaited in between"
        wire.delay()
        await wait_until(lambda: all(run.stored for run in runtime_of(busy).journal.runs()), description="every run is stored")
        over.set()
        await asyncio.gather(*tasks)
    assert (await tracker.stats()).succeeded == 4 * BATCH


async def test_when_more_has_ended_than_is_remembered_tracking_is_up_to_date_again_all_the_same_and_says_what_was_dropped(
    wire, make_tracker, tracker, caplog
):
    over = asyncio.Event()
    async with make_tracker(redis_options={"url": wire.url}, **QUIET) as busy, busy.register():
        runtime = runtime_of(busy)
        tasks = [asyncio.create_task(hold(busy, f"{number}", over)) for number in range(ENDED_KEPT + 1)]
        await wait_until(lambda: len(tasks) == runtime.journal.busy, description="every job runs")
        await wait_until(lambda: all(run.stored for run in runtime.journal.runs()), description="every run is stored")
        full = wire.reply_with_error("OOM command not allowed when used memory > 'maxmemory'.", to={"EVALSHA", "EVAL"})
        over.set()
        await asyncio.gather(*tasks)
        await wait_until(lambda: runtime.writer.is_behind, description="a write was refused")
        full.remove()
        await wait_until(lambda: not runtime.is_behind, timeout=5, description="tracking is up to date again")
        assert await tracker.jobs() == []
    assert [record.levelname for record in caplog.records if "tracking is behind" in record.message] == ["WARNING"]
    (again,) = [record for record in caplog.records if "up to date again" in record.message]
    assert (again.levelname, f"{ENDED_KEPT + 1} writes were dropped" in again.message) == ("WARNING", True)
