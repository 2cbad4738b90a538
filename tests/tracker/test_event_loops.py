"""One tracker and many event loops: made before any, in two after each other, in another kind, watched closely, forked."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from async_tracker import Tracker
from tests.harness.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import asyncio, os, sys, warnings
from arq.connections import RedisSettings, create_pool
from arq.worker import Worker
from async_tracker import Tracker, current_job

url, namespace, way = sys.argv[1:]
own = {"redis_options": {"url": url}} if "own" in way else {}
interval = 60.0 if "killed" in way else 0.5
tracker = Tracker(namespace=namespace, heartbeat_interval=interval, heartbeat_ttl=150, silence_limit=150, **own)  # before there is any loop

async def job(ctx):
    return current_job().job_id

SETTINGS = tracker.install({"functions": [job]})

async def plain():
    async with tracker.register(), tracker.track("42"):
        while [found.job_id for found in await tracker.jobs()] != ["42"]:
            await asyncio.sleep(0.01)
    assert await tracker.instances() == []
    await tracker.aclose()

async def lose_connection(pool):
    (before,) = await tracker.instances()
    assert before.connection_ids
    for number in before.connection_ids:
        await pool.client_kill_filter(_id=str(number))
    async with asyncio.timeout(interval / 2):  # no beat is due so soon: it has noticed by itself
        while True:
            (now,) = await tracker.instances()
            if now.connection_ids and now.connection_ids != before.connection_ids:
                return
            await asyncio.sleep(0.01)

async def worker(close=True):
    pool = await create_pool(RedisSettings.from_dsn(url))
    enqueued = await pool.enqueue_job("job")
    running = Worker(**SETTINGS, redis_pool=await create_pool(RedisSettings.from_dsn(url)), poll_delay=0.02, handle_signals=False)
    running.main_task = asyncio.create_task(running.main())
    assert await enqueued.result(timeout=30, poll_delay=0.02) == enqueued.job_id
    assert tracker.instance_id is not None, "it is not tracked"
    while not await tracker.instances():
        await asyncio.sleep(0.01)
    if "killed" in way:
        await lose_connection(pool)
    if close:
        await running.close()
    await pool.aclose()

warnings.simplefilter("ignore", DeprecationWarning)  # arq closes its pool in a way that redis-py has deprecated
run = asyncio.run
if "uvloop" in way:
    import uvloop
    run = uvloop.run
if "plain" in way:
    run(plain())
    run(plain())
if "arq" in way:
    run(worker())
    run(worker())
if "abandoned" in way:
    run(worker(close=False))
    run(worker())
print("all is well")
"""

COMPLAINT_OF_THE_DRIVER = re.compile(r"Exception ignored in: <function AbstractConnection\.__del__ .*?Error: Event loop is closed\n", re.S)
"""Until redis-py 5.3, of a connection whose loop has ended: that of the tracker's own client for questions, which nobody has closed."""
VERSION = tuple(map(int, redis.__version__.split(".")[:2]))


def run_program(redis_url: str, namespace: str, way: str, **environment: str) -> str:
    """Run the program in a process of its own and return what it printed."""
    command = [sys.executable, "-X", "faulthandler", "-c", PROGRAM, redis_url, namespace, way]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "all is well\n", result.stdout + result.stderr
    return COMPLAINT_OF_THE_DRIVER.sub("", result.stderr) if VERSION < (5, 3) else result.stderr


async def nothing_is_left(tracker: Tracker) -> bool:
    """Let somebody sweep, and tell whether anybody is left."""
    await tracker.recover()
    return not await tracker.instances()


@pytest.mark.parametrize("way", ["plain own", "arq", "arq own", "plain own uvloop", "arq uvloop", "arq own uvloop"])
async def test_a_tracker_made_at_import_serves_one_loop_after_another(tracker, redis_url, namespace, way):
    said = await asyncio.to_thread(run_program, redis_url, namespace, way)
    assert "Traceback" not in said, said
    assert (await tracker.stats()).succeeded == 2
    assert await tracker.instances() == []


@pytest.mark.parametrize("way", ["arq killed", "arq own killed", "arq uvloop killed", "arq own uvloop killed"])
async def test_a_killed_connection_is_noticed_at_once_whatever_the_loop_is_made_of(tracker, redis_url, namespace, way):
    said = await asyncio.to_thread(run_program, redis_url, namespace, way)
    assert "Traceback" not in said, said
    assert await tracker.instances() == []


@pytest.mark.parametrize("way", ["abandoned", "abandoned own", "abandoned uvloop"])
async def test_a_loop_that_was_left_without_a_word_does_not_stand_in_the_way_of_the_next(tracker, redis_url, namespace, way):
    await asyncio.to_thread(run_program, redis_url, namespace, way)
    await wait_until(lambda: nothing_is_left(tracker), timeout=30, description="the abandoned instance was found dead")


@pytest.mark.parametrize("way", ["plain own", "arq"])
async def test_asyncio_in_debug_mode_finds_nothing_to_say(tracker, redis_url, namespace, way):
    said = await asyncio.to_thread(run_program, redis_url, namespace, way, PYTHONASYNCIODEBUG="1")
    assert "never awaited" not in said
    assert "never retrieved" not in said
    assert "Task was destroyed" not in said
    assert "Traceback" not in said, said
    assert (await tracker.stats()).succeeded == 2
