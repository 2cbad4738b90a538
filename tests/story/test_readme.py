"""The README and the pages that it leads to first, followed by their reader: each snippet runs as it is printed, on a real server."""

import asyncio
import datetime as dt
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from arq.connections import ArqRedis

from async_tracker import InstanceState, Job, LeaseLost, Tracker
from async_tracker.embedded import EmbeddedServer
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.harness.workers import WorkerProcess, Workers
from tests.story.snippets import ROOT, snippet, snippets

README = "README.md"
WORKERS = "docs/workers.md"
ASKING = "docs/asking.md"
START_WORKER = Callable[..., WorkerProcess]

BUSY_WORKER = """
import asyncio
from async_tracker import Tracker

async def main():
    async with Tracker(namespace="my_app") as tracker, tracker.register(), tracker.track("42"):
        while not await tracker.job("42"):
            await asyncio.sleep(0.01)
        print("busy")
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_jobs_of_a_killed_worker_run_again_on_another_one(as_a_user: str, start_worker: START_WORKER, pool: ArqRedis):
    workers = [start_worker(README, "tasks.py", env={"REDIS_URL": as_a_user}) for _ in range(2)]
    async with Tracker(namespace="my_app") as tracker:
        await wait_until(lambda: _count(tracker, 2), timeout=60, description="both workers are registered")
        for instance in await tracker.instances():
            assert (instance.state, instance.functions, instance.queue) == (InstanceState.ALIVE, ("send_newsletter",), "arq:queue")
        queued = await pool.enqueue_job("send_newsletter", 7, _job_id="issue-7")
        assert queued is not None

        async def half_sent() -> Job | None:
            job = await tracker.job("issue-7")
            return job if job is not None and (job.progress or 0) >= 0.2 and job.progress_message is not None else None

        job: Any = await wait_until(half_sent, timeout=30, description="the job tells its progress")
        instance = next(item for item in await tracker.instances() if item.instance_id == job.instance_id)
        next(worker for worker in workers if worker.pid == instance.pid).kill()

        async def runs_elsewhere() -> bool:
            job = await tracker.job("issue-7")
            return job is not None and job.instance_id != instance.instance_id and job.job_try == 2

        await wait_until(runs_elsewhere, timeout=30, description="the job runs again on the other worker")
        assert await queued.result(timeout=60, poll_delay=0.1) == "issue 7 sent"
        assert [found.state for found in await tracker.instances()] == [InstanceState.ALIVE]
        assert (await tracker.stats(function="send_newsletter")).recovered == 1


async def _count(tracker: Tracker, wanted: int) -> bool:
    return len(await tracker.instances()) == wanted


async def test_the_hooks_alone_track_jobs_without_their_names(as_a_user: str, start_worker: START_WORKER, pool: ArqRedis):
    worker = start_worker(WORKERS, "tasks_with_hooks_only.py", env={"REDIS_URL": as_a_user})
    async with Tracker(namespace="my_app") as tracker:
        queued = await pool.enqueue_job("send_newsletter", 7, _job_id="issue-7")
        assert queued is not None
        job: Any = await wait_until(lambda: tracker.job("issue-7"), timeout=30, description="the job is in flight")
        assert (job.function, job.queue) == (None, "arq:queue")
        await queued.result(timeout=60, poll_delay=0.1)
        worker.ask_to_leave()
        assert worker.wait() == 0
        assert (await tracker.stats()).ended == 1
        assert await tracker.instances() == []


async def test_a_web_app_answers_what_the_workers_do(as_a_user: str, load: Callable[..., Any]):
    web = load(ASKING, "web.py")
    transport = httpx.ASGITransport(app=web.app)
    async with (
        Tracker(namespace="my_app", **KNOWN) as worker,
        worker.register(queue="mail"),
        web.app.router.lifespan_context(web.app),
        httpx.AsyncClient(transport=transport, base_url="http://web") as client,
    ):
        async with worker.track("a/b", function="deliver"), worker.track("42", function="deliver"):

            async def both_are_seen() -> bool:
                return len((await client.get("/jobs", params={"function": "deliver"})).json()) == 2

            await wait_until(both_are_seen, description="both jobs are in flight")
            answer = await client.get("/jobs/42")
            assert answer.status_code == 200
            assert (answer.json()["function"], answer.json()["instance_id"]) == ("deliver", worker.instance_id)
            assert dt.datetime.fromisoformat(answer.json()["started_at"]).utcoffset() == dt.timedelta(0)
        [instance] = (await client.get("/workers")).json()
        assert (instance["state"], instance["queue"]) == ("alive", "mail")
        assert (await client.get("/jobs/unheard-of")).status_code == 404


async def test_a_web_app_says_503_while_redis_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Callable[..., Any]):
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/nobody-listens")
    web = load(ASKING, "web.py")
    async with (
        web.app.router.lifespan_context(web.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url="http://web") as client,
    ):
        answer = await client.get("/workers")
        assert answer.status_code == 503
        assert "cannot be reached" in answer.json()["detail"]


async def test_a_job_that_was_given_away_does_not_pay(as_a_user: str, load: Callable[..., Any]):
    paid = []

    async def price_of(order: str) -> int:
        return 5

    async def pay(order: str, amount: int) -> None:
        paid.append((order, amount))

    charge = load(WORKERS, "charge.py", price_of=price_of, pay=pay)
    async with Tracker(namespace="my_app", **KNOWN) as tracker, tracker.register() as instance_id:
        async with tracker.track("order-1"):
            await charge.charge({}, "order-1")
        async with tracker.track("order-2"), tracker.redis() as r:
            await r.zrem("instances", instance_id)  # as a sweep does that takes this instance for dead
            await r.set(f"tombstone:{instance_id}", 1, px=60_000)
            with pytest.raises(LeaseLost):
                await charge.charge({}, "order-2")
    assert paid == [("order-1", 5)]


def test_any_asyncio_code_can_be_tracked(tmp_path: Path, redis_url: str):
    path = tmp_path / "mailer.py"
    path.write_text(snippet(WORKERS, "mailer.py").text)
    ran = subprocess.run(
        [sys.executable, path],
        env={"REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("1 started, 1 succeeded\n", "")


async def test_a_dramatiq_worker_is_tracked_by_its_middleware(as_a_user: str, workers: Workers, tmp_path: Path):
    (tmp_path / "actors.py").write_text(snippet(WORKERS, "actors.py").text)
    env = {"PYTHONPATH": str(tmp_path), "REDIS_URL": as_a_user}
    workers.start_program([sys.executable, "-m", "dramatiq", "actors", "-p", "1", "-t", "2"], env=env)
    sending = "import actors; print(actors.send_newsletter.send(7).message_id)"
    sent = workers.start_program([sys.executable, "-c", sending], env={**env, "PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert await asyncio.to_thread(sent.wait) == 0
    async with Tracker(namespace="my_app") as tracker:

        async def half_sent() -> Job | None:
            return next((job for job in await tracker.jobs(function="send_newsletter") if job.progress_message), None)

        job: Any = await wait_until(half_sent, timeout=60, description="the message is processed and tells its progress")
        assert (job.job_id, job.library) == (sent.output().strip(), "dramatiq")
        await wait_until(lambda: _has_succeeded(tracker), timeout=60, description="the message has succeeded")


async def _has_succeeded(tracker: Tracker) -> bool:
    return (await tracker.stats(function="send_newsletter")).succeeded == 1


async def test_a_redis_of_its_own_holds_the_tracking_and_the_jobs_stay_where_they_were(
    make_server: Callable[..., EmbeddedServer], as_a_user: str, start_worker: START_WORKER, pool: ArqRedis, monkeypatch: pytest.MonkeyPatch
):
    apart = make_server()
    env = {"REDIS_URL": as_a_user, "TRACKER_REDIS_URL": apart.url}
    first, _ = start_worker(README, "tasks.py", env=env), start_worker(README, "tasks.py", env=env)
    for name, value in {"TRACKER_REDIS_URL": apart.url, "TRACKER_ARQ_REDIS_URL": as_a_user, "TRACKER_NAMESPACE": "my_app"}.items():
        monkeypatch.setenv(name, value)
    async with Tracker.from_env() as tracker:
        await wait_until(lambda: _count(tracker, 2), timeout=30, description="both workers are registered, apart from arq")
        first_pid = first.pid
        # More than one worker takes at a time: each of the two has some.
        queued = [await pool.enqueue_job("send_newsletter", issue, _job_id=f"issue-{issue}") for issue in range(14)]

        async def first_is_busy() -> bool:
            instances = {found.instance_id: found.pid for found in await tracker.instances()}
            return any(instances.get(job.instance_id) == first_pid for job in await tracker.jobs())

        await wait_until(first_is_busy, timeout=30, description="the first worker has a job in flight")
        assert [depth.queue for depth in await tracker.queues()] == ["arq:queue"]
        first.kill()
        results = await asyncio.gather(*(job.result(timeout=60, poll_delay=0.1) for job in queued if job is not None))
        assert results == [f"issue {issue} sent" for issue in range(14)]
        assert (await tracker.stats()).recovered > 0
    assert not [key async for key in pool.scan_iter("my_app:*") if not key.startswith(b"my_app:receipt:")]


async def test_options_win_over_the_same_part_of_the_url(load: Callable[..., Any]):
    tracker: Tracker = load("docs/redis.md", "own_redis.py").tracker
    async with tracker.redis() as r:
        options = r.redis.connection_pool.connection_kwargs
        assert {name: options[name] for name in ("host", "db", "socket_timeout")} == {"host": "tracker-redis", "db": 2, "socket_timeout": 5}


async def test_the_proxy_puts_the_namespace_in_front(as_a_user: str, load: Callable[..., Any], capsys: pytest.CaptureFixture[str]):
    keys = load("docs/namespace.md", "keys.py")
    async with Tracker(namespace="my_app") as tracker:
        await keys.try_it(tracker)
        await asyncio.to_thread(keys.try_it_from_a_thread, tracker)
        async with tracker.redis() as r:
            await r.set("kept", "v")
            assert await r.redis.get("my_app:kept") == b"v"
    assert re.fullmatch(r"my_app b'v' 1\nTrue [\d.]+\n", capsys.readouterr().out)


async def test_callbacks_and_followers_hear_what_happens(
    as_a_user: str, load: Callable[..., Any], workers: Workers, capsys: pytest.CaptureFixture[str]
):
    alerts = load(ASKING, "alerts.py")
    tracker: Tracker = alerts.tracker
    follower = asyncio.ensure_future(alerts.follow())
    async with tracker, tracker.register():
        victim = workers.start_program([sys.executable, "-c", BUSY_WORKER], env={"REDIS_URL": as_a_user, "PYTHONPATH": str(ROOT)})
        victim.wait_for_output("busy")
        victim.kill()
        printed = ""

        def both_have_heard() -> bool:
            nonlocal printed
            printed += capsys.readouterr().out
            return (
                bool(re.search(r"^instance_dead \S+ None \{'reason': 'its connection to Redis", printed, re.M)) and "'event_id'" in printed
            )

        await wait_until(both_have_heard, timeout=30, description="the callback and the follower have printed the death")
        assert [orphan.job_id for orphan in await tracker.orphans()] == ["42"]
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)


def test_the_variables_that_are_shown_are_read(monkeypatch: pytest.MonkeyPatch):
    [block] = [found for found in snippets("docs/settings.md") if found.language == "sh"]
    shown = dict(re.findall(r'^export (\w+)="?([^"\s]+)', block.text, re.MULTILINE))
    for name, value in shown.items():
        monkeypatch.setenv(name, value.replace("$POD_NAME", "pod-7"))
    settings = Tracker.from_env(heartbeat_ttl=20).settings
    assert (settings.namespace, settings.instance_id, settings.heartbeat_interval) == ("my_app", "pod-7", 5.0)
    assert (settings.tags, settings.heartbeat_ttl) == (("blue", "eu-west"), 20)


async def test_the_container_s_probe_sees_its_own_worker_and_sees_it_gone(as_a_user: str, start_worker: START_WORKER):
    [probe] = [found.text for found in snippets(ASKING) if found.language == "yaml"]
    command = re.findall(r'"([^"]+)"', re.search(r"command: (\[.*\])", probe)[1])  # type: ignore[index]
    [(name, value)] = re.findall(r"name: (\w+), value: (\w+)", probe)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"REDIS_URL": as_a_user, name: value, "PYTHONPATH": str(ROOT), "PATH": path}

    def check(**other: str) -> int:
        return subprocess.run(command, env={**env, **other}, capture_output=True, timeout=30, check=False).returncode

    assert await asyncio.to_thread(check, REDIS_URL="redis://127.0.0.1:1/0") == 0, "that Redis is away says nothing of the worker"

    assert await asyncio.to_thread(check) == 1
    worker = start_worker(README, "tasks.py", env={"REDIS_URL": as_a_user})
    async with Tracker(namespace=value) as tracker:
        await wait_until(tracker.instances, timeout=30, description="the worker is registered")
        assert await asyncio.to_thread(check) == 0
        worker.ask_to_leave()
        await asyncio.to_thread(worker.wait)
        assert await asyncio.to_thread(check) == 1


def test_what_the_demo_and_the_lists_are_shown_to_print_is_what_they_print():
    code = "\n".join(path.read_text() for path in (ROOT / "async_tracker" / "cli").rglob("*.py"))
    printed = re.sub(r"\{[^{}]*\}", "arq", code).upper()  # what is filled in is the library's name
    shown = "\n".join(found.text for found in snippets(README) if found.language == "console")
    headings = {word for line in re.findall(r"^[A-Z][A-Z ]{8,}$", shown, re.MULTILINE) for word in re.split(r"\s{2,}", line.strip())}
    said = {"KILLED", "NOTICED", "RUNNING AGAIN", "NOTHING WAS LOST.", "WHAT THE JOBS THEMSELVES HAVE WRITTEN DOWN"}
    assert {"INSTANCE", "OLDEST WAIT", "LOST", "BY ARQ ALONE AFTER", "REMARKS"} <= headings
    assert {words for words in headings | said if words not in printed} == set()
    assert said - {words for words in said if words in shown.upper()} == set()
