"""docs/adopting.md tried out: users with exactly the rights that it gives, and the ways that it describes."""

import asyncio
import contextlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from dramatiq.brokers.redis import RedisBroker

from async_tracker import Tracker
from async_tracker.config import SETTING_NAMES
from async_tracker.connections.access import redis_options
from async_tracker.embedded import EmbeddedServer
from tests.harness.wait import wait_until
from tests.harness.workers import Workers
from tests.story import everything_in_dramatiq
from tests.story.everything import SEEN, live_through_everything, starter
from tests.story.snippets import snippets, table

PAGE = "docs/adopting.md"
USERS = {block.text.split()[2]: block.text.split() for block in snippets(PAGE) if block.language == "acl"}
ARQ_IN_OTHER_CASES = {"setex", "zincrby", "zremrangebyscore", "zscan"}
"""What arq does for jobs that are aborted, retried or out of tries, and a sweep where thousands of jobs are due at the same moment."""
FOR_MINUTES_THAT_ARE_OVER = {"hscan", "unlink"}
"""The sweeper packs a minute of the history when it has been over for another one: mostly later than this story lasts."""
SPARING = {"client|tracking"}
"""Asked by an instance that sees another one sweep at two of its looks in a row, which a slow machine may not come to."""
ONLY_FOR_PEOPLE = {"zcount"}
"""How full a queue is: asked by ``ps`` and ``queues()``, which need more than the reader has."""


async def make_user(admin: redis.asyncio.Redis, name: str, *, keys: dict[str, str] | None = None, without: str = "") -> None:
    """Make the user that the page describes; ``keys`` replaces patterns of its keys, ``without`` is a command that it lacks."""
    words = ((keys or {}).get(word, word) for word in USERS[name] if word != f"+{without}")
    await admin.execute_command(*" ".join(words).split())


def url_for(server: EmbeddedServer, name: str) -> str:
    return server.tcp_url.replace("redis://", f"redis://{name}:secret@")


def allowed(name: str) -> set[str]:
    return {word.removeprefix("+") for word in USERS[name] if word.startswith("+")}


async def used(admin: redis.asyncio.Redis) -> set[str]:
    stats: dict[str, dict[str, int]] = await admin.info("commandstats")
    assert {name: counts for name, counts in stats.items() if counts["rejected_calls"]} == {}
    names = {name.removeprefix("cmdstat_") for name in stats}
    # Before Redis 7 subcommands were counted as their command.
    names |= {f"client|{subcommand}" for subcommand in ("id", "list", "setinfo", "setname") if "client" in names}
    return names | {"script|load"} if "script" in names else names


async def refused(admin: redis.asyncio.Redis) -> list[str]:
    return [f"{entry['username']}: {entry['object']}" for entry in await admin.execute_command("ACL", "LOG")]


@pytest.fixture
def one_server(make_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return make_server(tcp=True)


async def test_a_worker_and_a_reader_with_no_more_than_these_rights_live_through_everything(
    one_server: EmbeddedServer, workers: Workers, tmp_path: Path
):
    async with redis.asyncio.Redis.from_url(one_server.tcp_url) as admin:
        await make_user(admin, "worker")
        await make_user(admin, "reader")
        pool = await create_pool(RedisSettings.from_dsn(url_for(one_server, "worker")))
        await admin.config_resetstat()
        async with Tracker(namespace="my_app", redis_options={"url": url_for(one_server, "reader")}) as reader:
            await live_through_everything(
                reader, pool, starter(workers, tmp_path, {"REDIS_URL": url_for(one_server, "worker")}), tmp_path / SEEN
            )
            await ask_everything(reader)
        async with Tracker(namespace="my_app", redis_options={"url": url_for(one_server, "worker")}) as operator:
            assert await operator.retry_quarantined("pill")
            assert await operator.recover() == []
        await pool.aclose()
        assert await refused(admin) == []
        in_other_cases = ARQ_IN_OTHER_CASES | ONLY_FOR_PEOPLE | FOR_MINUTES_THAT_ARE_OVER | SPARING
        assert (allowed("worker") | allowed("reader")) - await used(admin) - in_other_cases == set()


async def ask_everything(tracker: Tracker) -> None:
    snapshot = await tracker.snapshot()
    assert snapshot.corrupt == ()
    assert [pill.job_id for pill in await tracker.quarantined()] == ["pill"]
    assert (await tracker.stats()).recovered == 2
    assert await tracker.orphans() == []
    told = []
    async for event in tracker.events(since="0-0"):
        told.append(event.type)
        if event.type == "instance_dead":
            break
    assert told[0] == "deployed"
    assert await tracker.events(count=True) >= len(told)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await anext(tracker.events())  # nothing happens any more
    with tracker.redis_sync() as r:
        assert r.ping()


async def test_a_reader_can_change_nothing(one_server: EmbeddedServer):
    async with redis.asyncio.Redis.from_url(one_server.tcp_url) as admin:
        await make_user(admin, "reader")
        await admin.set("my_app:kept", "v")
        await admin.set("foreign", "v")
        async with Tracker(namespace="my_app", redis_options={"url": url_for(one_server, "reader")}) as reader, reader.redis() as r:
            for command in (("SET", "kept", "x"), ("DEL", "kept"), ("EVAL", "return redis.call('DEL', KEYS[1])", 1, "kept")):
                with pytest.raises(redis.exceptions.ResponseError):
                    await r.execute_command(*command)
            with pytest.raises(redis.exceptions.NoPermissionError):
                await r.redis.get("foreign")
        assert (await admin.get("my_app:kept"), await admin.get("foreign")) == (b"v", b"v")


async def test_a_redis_of_its_own_needs_no_more_than_these_rights(
    make_server: Callable[..., EmbeddedServer], workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for_arq, apart = make_server(tcp=True), make_server(tcp=True)
    async with redis.asyncio.Redis.from_url(for_arq.tcp_url) as arq_admin, redis.asyncio.Redis.from_url(apart.tcp_url) as admin:
        await make_user(arq_admin, "worker", keys={"~my_app:*": "~my_app:receipt:*"})
        await make_user(admin, "tracker")
        await make_user(admin, "reader")
        env = {"REDIS_URL": url_for(for_arq, "worker"), "TRACKER_REDIS_URL": url_for(apart, "tracker")}
        pool: ArqRedis = await create_pool(RedisSettings.from_dsn(for_arq.tcp_url))
        await admin.config_resetstat()
        async with Tracker(namespace="my_app", redis_options={"url": url_for(apart, "reader")}) as reader:
            await live_through_everything(reader, pool, starter(workers, tmp_path, env), tmp_path / SEEN)
        await pool.aclose()
        assert (await refused(arq_admin), await refused(admin)) == ([], [])
        assert allowed("tracker") - await used(admin) - FOR_MINUTES_THAT_ARE_OVER - SPARING == set()


async def test_a_dramatiq_worker_with_no_more_than_these_rights_lives_through_everything(
    one_server: EmbeddedServer, workers: Workers, tmp_path: Path
):
    url = url_for(one_server, "dramatiq_worker")
    async with redis.asyncio.Redis.from_url(one_server.tcp_url) as admin:
        await make_user(admin, "dramatiq_worker")
        await make_user(admin, "reader")
        await admin.config_resetstat()
        async with Tracker(namespace="my_app", redis_options={"url": url_for(one_server, "reader")}) as reader:
            await live_through_dramatiq(reader, admin, one_server, everything_in_dramatiq.starter(workers, tmp_path, {"REDIS_URL": url}))
        async with Tracker(namespace="my_app", redis_options={"url": url}) as operator:
            assert [queue.queue for queue in await operator.queues()] == ["default"]
            assert await operator.retry_quarantined("pill")
            assert await operator.recover() == []
        assert await refused(admin) == []
        assert allowed("dramatiq_worker") - await used(admin) - FOR_MINUTES_THAT_ARE_OVER - SPARING == set()


async def live_through_dramatiq(tracker: Tracker, admin: redis.asyncio.Redis, server: EmbeddedServer, start: Callable[..., Any]) -> None:
    broker = RedisBroker(url=server.tcp_url)
    await everything_in_dramatiq.live_through_everything(tracker, admin, broker, start)
    broker.client.connection_pool.disconnect()


async def test_a_dramatiq_worker_and_a_redis_of_the_tracker_s_own_need_no_more_than_these_rights(
    make_server: Callable[..., EmbeddedServer], workers: Workers, tmp_path: Path
):
    for_dramatiq, apart = make_server(tcp=True), make_server(tcp=True)
    url, apart_url = url_for(for_dramatiq, "dramatiq_worker"), url_for(apart, "tracker")
    async with redis.asyncio.Redis.from_url(for_dramatiq.tcp_url) as broker_admin, redis.asyncio.Redis.from_url(apart.tcp_url) as admin:
        await make_user(broker_admin, "dramatiq_worker", keys={"~my_app:*": "~my_app:receipt:* ~my_app:marks:*"})
        await make_user(admin, "tracker")
        start = everything_in_dramatiq.starter(workers, tmp_path, {"REDIS_URL": url, "TRACKER_REDIS_URL": apart_url})
        async with Tracker(namespace="my_app", redis_options={"url": apart_url}, dramatiq_redis=url) as operator:
            await live_through_dramatiq(operator, broker_admin, for_dramatiq, start)
            assert [queue.queue for queue in await operator.queues()] == ["default"]
            assert await operator.retry_quarantined("pill")
            assert await operator.recover() == []
        assert (await refused(broker_admin), await refused(admin)) == ([], [])


async def test_without_client_list_the_heartbeat_has_to_do(one_server: EmbeddedServer):
    async with redis.asyncio.Redis.from_url(one_server.tcp_url) as admin:
        await make_user(admin, "worker", without="client|list")
        options = {"url": url_for(one_server, "worker")}
        times = {"heartbeat_interval": 0.2, "heartbeat_ttl": 0.6, "silence_limit": 60, "sweep_interval": 30}
        async with Tracker(namespace="my_app", redis_options=options, **times) as tracker, tracker.register() as instance_id:
            # The first sweep comes soon, the next one half a minute later: one in between would be right to declare it dead.
            await wait_until(lambda: admin.keys("my_app:samples:*"), description="it has swept")

            async def heartbeat_of_long_ago_is_all_there_is() -> bool:
                await admin.zadd("my_app:instances", {instance_id: 1})
                found: Any = await tracker.instance(instance_id)  # a beat may have come in between
                return "Redis does not tell whether its connection is open" in found.reason

            await wait_until(heartbeat_of_long_ago_is_all_there_is, description="the reason says that Redis does not tell")

            async def beats_again() -> bool:
                instance = await tracker.instance(instance_id)
                return instance is not None and instance.state == "alive"

            await wait_until(beats_again, description="the next beat makes it alive again")


def test_what_the_gem_calls_something_is_called_something_here():
    rows = table(PAGE, under="Coming from sidekiq-processing-tracker")
    known = {*SETTING_NAMES, "redis_options", "none"} | {f"TRACKER_{name.upper()}" for name in SETTING_NAMES}
    known |= {"TRACKER_REDIS_URL", "REDIS_URL"}
    for row in rows:
        if row["gem"].startswith("config.") and row["gem"] != "config.logger":
            here = re.sub(r" \([\d.]+\)", "", row["here"]).split(", ")
            assert set(here) <= known, row["gem"]
    defaults = {name: float(value) for row in rows for name, value in re.findall(r"(\w+) \(([\d.]+)\)", row["here"])}
    settings = Tracker().settings
    assert {name: getattr(settings, name) for name in defaults} == defaults
    assert "socket_timeout" in redis_options({"socket_timeout": 5})


def test_the_page_s_check_of_a_connection_works(as_a_user: str, load: Callable[..., Any], capsys: pytest.CaptureFixture[str]):
    load(PAGE, "verify.py")
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"connected: True, namespace: test_tracker, server: [\d.]+", first)
    assert second == "read back: b'test_value', deleted: 1"


async def test_only_tracking_lists_what_a_dead_worker_left_until_somebody_recovers_it(
    as_a_user: str, pool: ArqRedis, workers: Workers, tmp_path: Path
):
    start = starter(workers, tmp_path, {"REDIS_URL": as_a_user, "TRACKER_RECOVER": "no"})
    async with Tracker(namespace="my_app") as tracker:
        victim = start()
        await pool.enqueue_job("long", _job_id="42")
        await wait_until(lambda: tracker.job("42"), timeout=30, description="the job is in flight")
        start()
        victim.kill()
        await wait_until(tracker.orphans, timeout=30, description="the job is an orphan")
        [plan] = await tracker.recover(dry_run=True)
        assert (plan.job_id, plan.action, plan.dry_run) == ("42", "recovered", True)
        assert [orphan.job_id for orphan in await tracker.orphans()] == ["42"]
        [done] = await tracker.recover()
        assert (done.job_id, done.dry_run) == ("42", False)
        await wait_until(lambda: tracker.jobs(), timeout=30, description="the job runs again")


async def test_an_untracked_worker_beside_tracked_ones_is_never_touched(as_a_user: str, pool: ArqRedis, workers: Workers, tmp_path: Path):
    untracked = inspect.cleandoc(
        """
        import asyncio, os
        from arq.connections import RedisSettings

        async def long(ctx):
            await asyncio.sleep(60)

        class WorkerSettings:
            functions = [long]
            redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
        """
    )
    (tmp_path / "untracked.py").write_text(untracked)
    env = {"REDIS_URL": as_a_user, "PYTHONPATH": str(tmp_path)}
    victim = workers.start_program([sys.executable, "-m", "arq", "untracked.WorkerSettings"], env=env)
    await pool.enqueue_job("long", _job_id="42")
    await wait_until(lambda: pool.get("arq:in-progress:42"), timeout=30, description="the untracked worker has claimed the job")
    start = starter(workers, tmp_path, {"REDIS_URL": as_a_user})
    async with Tracker(namespace="my_app") as tracker:
        start()
        await wait_until(tracker.instances, timeout=30, description="a tracked worker is there")
        victim.kill()
        await pool.enqueue_job("quick", _job_id="after")
        await wait_until(lambda: pool.exists("arq:result:after"), timeout=30, description="the tracked worker works")
        assert await tracker.recover() == []
        assert await pool.get("arq:in-progress:42") == b"1"


async def _both_are_there(admin: redis.asyncio.Redis) -> bool:
    return bool(await admin.zcard("my_app:instances") == 2)


async def test_a_worker_that_lacks_a_right_says_which_and_works_on(one_server: EmbeddedServer, workers: Workers, tmp_path: Path):
    async with redis.asyncio.Redis.from_url(one_server.tcp_url) as admin:
        await make_user(admin, "worker", without="hgetall")
        start = starter(workers, tmp_path, {"REDIS_URL": url_for(one_server, "worker")})
        pool = await create_pool(RedisSettings.from_dsn(one_server.tcp_url))
        victim, other = start(), start()
        await wait_until(lambda: _both_are_there(admin), timeout=30, description="both workers are registered")
        victim.kill()
        await asyncio.to_thread(other.wait_for_output, "sweeps fail, so this worker recovers nothing")
        assert other.output().count("sweeps fail, so this worker recovers nothing") == 1
        assert "'hgetall' command" in other.output()
        await pool.enqueue_job("quick", _job_id="after")
        await wait_until(lambda: pool.exists("arq:result:after"), timeout=30, description="jobs run on")
        await pool.aclose()
