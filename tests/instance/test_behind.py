"""Whether Redis has fallen behind what an instance knows, as its own process can see it."""

from async_tracker import Tracker
from tests.harness.inside import runtime_of
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until


async def test_a_tracker_says_while_redis_takes_nothing_that_it_is_behind(wire, namespace):
    async with Tracker(
        namespace=namespace, redis_options={"url": wire.url}, heartbeat_interval=0.2, heartbeat_ttl=15.0, **KNOWN
    ) as tracker:
        assert not tracker.is_behind, "without an instance there is nothing to be behind with"
        async with tracker.register():
            assert not tracker.is_behind
            wire.refuse()
            await wait_until(lambda: tracker.is_behind, description="a heartbeat has failed")
            wire.accept()
            await wait_until(lambda: not tracker.is_behind, description="a heartbeat was taken")


async def test_writes_that_redis_refuses_put_a_tracker_behind_whose_heartbeats_are_taken(wire, namespace):
    def is_write(command):
        return len(command) > 2 and command[0].upper() in (b"EVALSHA", b"EVAL") and any(part.endswith(b":jobs:" + own) for part in command)

    tracker = Tracker(namespace=namespace, redis_options={"url": wire.url}, heartbeat_interval=0.2, heartbeat_ttl=15.0, **KNOWN)
    async with tracker, tracker.register() as instance_id:
        own = instance_id.encode()
        full = wire.reply_with_error("OOM command not allowed when used memory > 'maxmemory'.", to=is_write)
        async with tracker.track("42"):
            await wait_until(lambda: tracker.is_behind, description="a write was refused")
            full.remove()
            await wait_until(lambda: not tracker.is_behind, description="the write was taken")
            job = await tracker.job("42")
            assert job is not None
            assert job.instance_id == instance_id


async def test_while_writes_fail_no_second_try_waits_for_its_own(wire, namespace, monkeypatch):
    """A wait would outlast the test. Five a second are written before they begin, so these are."""
    tracker = Tracker(namespace=namespace, redis_options={"url": wire.url}, hook_timeout=3_600.0)
    async with tracker, tracker.register():
        runtime = runtime_of(tracker)
        wait_written, waits = runtime.writer.wait_written, []

        async def counted(is_written):
            waits.append(is_written)
            await wait_written(is_written)

        monkeypatch.setattr(runtime.writer, "wait_written", counted)
        wire.refuse()
        first = runtime.start_run("first", job_try=2)
        await wait_until(lambda: runtime.writer.is_behind, description="its write has failed")
        runs = [first, *(runtime.start_run(f"{number}", job_try=2) for number in range(3))]
        for run in runs:
            await runtime.wait_stored(run)
        assert [run.is_prompt for run in runs] == [True] * 4
        assert waits == []
        wire.accept()
        await wait_until(lambda: all(run.stored for run in runs), description="they are written once Redis is back")
        for run in runs:
            runtime.end_run(run)
