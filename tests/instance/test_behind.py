"""Whether Redis has fallen behind what an instance knows, as its own process can see it."""

from async_tracker import Tracker
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
