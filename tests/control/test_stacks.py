"""Stacks, asked for: from workers that run, from one whose loop is blocked, from those that refuse; and from the command line."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from arq import func
from arq.connections import ArqRedis

from async_tracker import OrderFailed, OrderOutcome, Stacks, Tracker, WaitingJobs
from tests.cli.conftest import Cli
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.harness.workers import Workers

LONG = 30.0
"""Seconds that an answer may take on a busy machine."""

BLOCKED = """
import asyncio, pathlib, sys, time
from async_tracker import Tracker

async def waiting(tracker, begun):
    async with tracker.track("waits", function="wait"):
        begun.set()
        await asyncio.Event().wait()

def compute(path):
    while not path.exists():
        time.sleep(0.02)

async def main(url, namespace, path):
    async with Tracker(namespace=namespace, redis_options={"url": url}, heartbeat_interval=0.5, heartbeat_ttl=15.0) as tracker:
        async with tracker.register():
            begun = asyncio.Event()
            beside = asyncio.create_task(waiting(tracker, begun))
            await begun.wait()
            async with tracker.track("blocks", function="block"):
                compute(pathlib.Path(path))
            beside.cancel()
            await asyncio.wait([beside])

asyncio.run(main(*sys.argv[1:]))
"""


def functions(group: WaitingJobs) -> list[str]:
    return [frame.rpartition(" ")[2] for frame in group.chain.frames]


class Holding:
    """Two functions that wait, each at a line of its own."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.begun = 0

    async def fetch(self) -> None:
        self.begun += 1
        await self.may_end.wait()

    async def send(self, ctx: dict[str, Any]) -> None:
        await self.fetch()

    async def report(self, ctx: dict[str, Any]) -> None:
        await asyncio.gather(self.fetch(), self.fetch())

    def settings(self, tracker: Tracker) -> Any:
        return tracker.install({"functions": [func(self.send, name="send"), func(self.report, name="report")]})


async def test_an_arq_worker_tells_where_its_jobs_wait_and_the_command_line_groups_them(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, redis_url: str, namespace: str
):
    holding = Holding()
    worker = await run_worker(holding.settings(own_tracker))
    for number in range(3):
        await pool.enqueue_job("send", _job_id=f"send-{number}")
    await pool.enqueue_job("report", _job_id="report")
    await wait_until(lambda: holding.begun == 5, description="all of them wait")
    instance_id = own_tracker.instance_id
    assert instance_id is not None
    seen = await observer.stacks(instance_id, wait=LONG)
    many, one = seen.jobs
    assert (many.count, sorted(many.job_ids), many.function) == (3, ["send-0", "send-1", "send-2"], "send")
    assert functions(many) == ["send", "fetch", "wait"]
    assert (one.job_ids, [branch.times for branch in one.chain.branches]) == (("report",), [2])
    assert not seen.is_blocked
    assert "async-tracker-watchdog" in {thread.name for thread in seen.threads}
    assert [group.job_ids for group in (await observer.stacks(instance_id, "report", wait=LONG)).jobs] == [("report",)]

    cli = Cli(url=redis_url, namespace=namespace)
    answer = await cli.within("stacks", instance_id.rpartition(":")[0])
    assert answer.code == 0, answer.err
    assert f"4 jobs in flight on {instance_id}" in answer.out
    assert f"3 jobs of send at {__file__}" in answer.out
    assert "2 times:" in answer.out
    document = (await cli.within("stacks", instance_id, "--job", "report", "--json")).document
    assert [group["job_ids"] for group in document["jobs"]] == [["report"]]
    missing = await cli.within("stacks", instance_id, "--job", "gone")
    assert (missing.code, "runs no job gone" in missing.err) == (4, True)
    unknown = await cli.within("stacks", "nobody")
    assert (unknown.code, "no instance is called nobody" in unknown.err) == (4, True)
    holding.may_end.set()
    await worker.idle()
    told = [event for event in await observer.recent_events() if event.type == "control"]
    assert told[0].details["order"] == "stacks"
    assert told[0].details["says"].startswith("4 jobs in flight, ")


async def test_a_worker_whose_loop_is_blocked_answers_by_its_watchdog(
    observer: Tracker, workers: Workers, redis_url: str, namespace: str, tmp_path: Path
):
    path = tmp_path / "end"
    program = workers.start_program([sys.executable, "-c", BLOCKED, redis_url, namespace, str(path)])

    async def blocked() -> str | None:
        if await observer.job("blocks") is None:  # its loop may have been blocked before: by its own start
            return None
        return next((item.instance_id for item in await observer.instances() if item.blocked_at), None)

    instance_id = str(await wait_until(blocked, timeout=30, description="its loop is blocked"))
    seen: Stacks = await observer.stacks(instance_id, wait=LONG)
    assert seen.is_blocked
    by_function = {group.function: group for group in seen.jobs}
    assert functions(by_function["block"])[:2] == ["main", "compute"]
    assert by_function["block"].chain.ends == "running"
    assert functions(by_function["wait"]) == ["waiting", "wait"]
    path.touch()
    assert program.wait() == 0


@pytest.mark.parametrize("control", [False, {"quiet"}])
async def test_a_worker_that_takes_no_such_order_refuses(namespace: str, redis_url: str, observer: Tracker, control: Any):
    async with (
        Tracker(namespace=namespace, redis_options={"url": redis_url}, control=control, **KNOWN) as tracker,
        tracker.register() as instance_id,
    ):
        with pytest.raises(OrderFailed, match="it takes no such order") as caught:
            await observer.stacks(instance_id)
    assert caught.value.outcome == OrderOutcome.REFUSED


async def test_of_an_instance_that_is_not_there_nothing_is_told(observer: Tracker):
    with pytest.raises(OrderFailed, match="no such instance is registered") as caught:
        await observer.stacks("nobody:1:ab")
    assert caught.value.outcome == OrderOutcome.NOT_FOUND
