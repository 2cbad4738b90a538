"""The live stream: what it sends, what it costs, how it is taken up again, and that it keeps no process from ending."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
import redis.asyncio

from async_tracker import Tracker
from async_tracker.web import live, readings
from async_tracker.web.answers import Problem, compact
from async_tracker.web.live import Live
from async_tracker.web.pictures import Pictures
from async_tracker.web.readings import Readings
from async_tracker.web.screens import topic
from benchmarks.queries import longest_held, named_connections, write_namespace
from tests.harness.wait import wait_until
from tests.web.conftest import ServedAlone, lets_read
from tests.web.test_api import with_jobs


@dataclass(slots=True)
class Heard:
    """What one viewer was sent: its pictures as a browser keeps them, and how many bytes that took."""

    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_id: str = ""
    rounds: list[int] = field(default_factory=list)
    """Of the server, as the ids of the events tell them."""
    events: int = 0
    sizes: list[int] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)

    def take(self, event: str) -> None:
        fields = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line and not line.startswith(":"))
        if "data" not in fields:
            return
        self.last_id, self.events = fields["id"], self.events + 1
        self.rounds.append(int(self.last_id.rpartition("-")[2]))
        self.sizes.append(len(event) + 2)
        for name, parts in json.loads(fields["data"])["news"]:
            for part in parts:
                if part.get("whole"):
                    self.whole.append(name)
                    self.pictures[name] = {"facts": {}, "order": [], "rows": {}, "error": None}
                picture = self.pictures[name]
                picture["facts"].update(part.get("facts", {}))
                for key, changed in part.get("rows", {}).items():
                    picture["rows"].setdefault(int(key), {}).update(changed)
                picture["order"] = part.get("order", picture["order"])
                picture["rows"] = {key: picture["rows"][key] for key in picture["order"]}
                picture["error"] = part.get("error", picture["error"])

    def rows(self, name: str) -> list[dict[str, Any]]:
        found = self.pictures.get(name, {"rows": {}})
        return list(found["rows"].values())


@asynccontextmanager
async def following(client: httpx.AsyncClient, *topics: str, last_id: str = "", heard: Heard | None = None) -> AsyncIterator[Heard]:
    """Follow topics while the block runs."""
    heard = heard or Heard()
    headers = {"last-event-id": last_id} if last_id else {}

    async def follow() -> None:
        async with client.stream("GET", "api/v1/live", params=[("topic", name) for name in topics], headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            assert "content-encoding" not in response.headers
            text = ""
            async for part in response.aiter_text():
                text += part
                while "\n\n" in text:
                    event, _, text = text.partition("\n\n")
                    heard.take(event)

    task = asyncio.create_task(follow())
    try:
        yield heard
    finally:
        if task.done():
            task.result()  # what it failed with, and the block then waited for in vain
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_viewer_is_given_the_whole_and_then_what_changes(serve_here, tracker):
    async with (
        AsyncExitStack() as stack,
        (await serve_here()).program() as program,
        following(program, "overview", "jobs", "instances") as heard,
    ):
        await wait_until(lambda: heard.events, description="the first pictures")
        assert sorted(heard.whole) == ["head", "instances", "jobs", "overview"]
        instance_id = await with_jobs(stack, tracker, "one", "two")
        await wait_until(lambda: len(heard.rows("jobs")) == 2, description="both jobs are told")
        await wait_until(lambda: [row["id"] for row in heard.rows("instances")] == [instance_id], description="so is the instance")
        assert {row["instance"] for row in heard.rows("jobs")} == {instance_id}
        await wait_until(lambda: heard.pictures["head"]["facts"]["jobs"] == 2, description="the head counts them")
        assert sorted(heard.whole) == ["head", "instances", "jobs", "overview"]
        assert not [name for row in heard.rows("instances") for name in row if "age" in name or name.endswith("_for")]


async def test_a_viewer_that_was_cut_off_is_told_what_it_missed_or_everything(serve_here, tracker):
    """Another one looks on, so that the changes of this time are remembered however long it is."""
    async with (await serve_here()).program() as program, AsyncExitStack() as stack:
        await stack.enter_async_context(following(program, "jobs"))
        async with following(program, "jobs") as heard:
            await wait_until(lambda: heard.events, description="the first picture")
        await with_jobs(stack, tracker, "meanwhile")
        async with following(program, "jobs", last_id=heard.last_id, heard=heard):
            await wait_until(lambda: [row["id"] for row in heard.rows("jobs")] == ["meanwhile"], description="what was missed")
            assert heard.whole == ["head", "jobs"]
        async with following(program, "jobs", last_id="other-7") as stranger:
            await wait_until(lambda: stranger.events, description="the whole picture")
            assert stranger.whole == ["head", "jobs"]


async def test_the_only_viewer_that_comes_back_soon_is_told_what_it_missed(mount, tracker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "_LINGER", 3_600.0)
    client, heard = mount(authorize=lets_read), Heard()

    async def look() -> None:
        headers = {"last-event-id": heard.last_id} if heard.last_id else {}
        for event in (await client.get("/api/v1/live?topic=jobs&once=1", headers=headers)).text.split("\n\n"):
            heard.take(event)

    async def told() -> bool:
        await look()
        return [row["id"] for row in heard.rows("jobs")] == ["meanwhile"]

    await look()
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "meanwhile")
        await wait_until(told, description="what was missed", poll_interval=0.1)
    assert heard.whole == ["head", "jobs"]


async def test_nobody_looks_and_nothing_is_read(serve_here, redis_client):
    async with (await serve_here()).program() as program:
        async with following(program, "overview") as heard:
            await wait_until(lambda: heard.events > 1, description="somebody looks")

        async def rests() -> bool:
            before = (await redis_client.info("stats"))["total_commands_processed"]
            await asyncio.sleep(1.5)
            return bool((await redis_client.info("stats"))["total_commands_processed"] - before <= 1)  # our own question

        await wait_until(rests, timeout=30.0, description="the process is silent towards Redis")


@asynccontextmanager
async def viewers(hub: Live, count: int, *names: str) -> AsyncIterator[list[int]]:
    """Have that many look at these screens, all at once; gives how much each has been sent, when each has its first picture."""
    sent = [0] * count

    async def look(number: int) -> None:
        async def send(message: Any) -> None:
            sent[number] += len(message.get("body", b""))

        topics = [(name, topic(name)) for name in names]
        await hub.stream({"type": "http"}, never, send, topics=topics, last_event_id=None, once=False)

    tasks = [asyncio.create_task(look(number)) for number in range(count)]
    try:
        await wait_until(lambda: all(sent), timeout=30.0, description=f"{count} have their first picture")
        yield sent
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def never() -> Any:
    await anyio.sleep_forever()


async def test_a_hundred_viewers_cost_redis_exactly_what_one_costs(redis_url, redis_client, namespace, make_tracker, monkeypatch):
    """Rounds are run by hand, each of them reading everything anew: what one viewer is shown is read once for a hundred."""
    monkeypatch.setattr(live, "PERIOD", 3_600.0)
    monkeypatch.setattr(readings, "_FRESH_FOR", dict.fromkeys(readings._FRESH_FOR, 3_600.0))
    tracker = make_tracker()
    asked: Counter[str | None] = Counter()
    read_from_redis = Readings._read

    async def read(self: Readings, kind: Any) -> Any:
        asked[kind[0]] += 1
        return await read_from_redis(self, kind)

    monkeypatch.setattr(Readings, "_read", read)

    async def commands() -> dict[str, int]:
        found = {name: stats["calls"] for name, stats in (await redis_client.info("commandstats")).items()}
        await redis_client.config_resetstat()
        return {name: calls for name, calls in found.items() if name not in ("cmdstat_info", "cmdstat_config|resetstat")}

    async def spent_on(count: int, *screens: str) -> list[Any]:
        """Tell what was asked, and by which commands, for the first pictures of so many viewers, and in two rounds more."""
        hub = Live(Readings(tracker), ends_after=None)
        asked.clear()
        await commands()
        async with viewers(hub, count, *screens) as sent:
            spent, before = [dict(asked), await commands()], list(sent)
            for _ in range(2):
                hub._readings.forget()
                await hub.run_round()
            spent += [dict(asked), await commands()]
            await wait_until(lambda: all(now > then for now, then in zip(sent, before, strict=True)), description="each is told")
        assert hub._viewers == 0
        assert len(set(sent)) == 1, "each was sent the same"
        await hub.aclose()
        return spent

    with named_connections(redis_url, 3) as connections:
        await write_namespace(redis_client, namespace, connections=connections, jobs_each=2)
        plain = ("instances", "jobs", "jobs?sort=-id", "orphans", "events", "quarantine")
        await spent_on(1, *plain)  # connections are made, and scripts are known to the server
        one = await spent_on(1, *plain)
        assert sum(one[-1].values()) > 20
        assert await spent_on(100, *plain) == one
        # What these read of the past depends on the hour that it is: of them the questions are counted.
        past = ("overview", "queues", "functions", "function?function=send_email")
        assert (await spent_on(100, *past))[::2] == (await spent_on(1, *past))[::2]


async def test_a_viewer_that_is_gone_before_its_first_picture_is_counted_no_more(wire, make_tracker):
    hub = Live(Readings(make_tracker(redis_options={"url": wire.url})))
    wire.stall()
    topics = [("jobs", topic("jobs"))]
    looks = asyncio.create_task(hub.stream({"type": "http"}, never, never, topics=topics, last_event_id=None, once=False))  # type: ignore[arg-type]
    await wait_until(lambda: hub._viewers == 1, description="it has come")
    looks.cancel()
    await asyncio.gather(looks, return_exceptions=True)
    assert hub._viewers == 0
    assert [channel.viewers for channel in (hub._head, *hub._channels.values())] == [0, 0]
    wire.flow()
    await hub.aclose()
    await hub._readings.aclose()


async def test_a_screen_that_cannot_be_made_says_so_and_the_others_go_on(tracker, monkeypatch, caplog):
    monkeypatch.setattr(live, "PERIOD", 3_600.0)
    hub, heard = Live(Readings(tracker)), Heard()

    async def breaks(self: Any) -> Any:
        raise KeyError("secret detail")

    async def take(message: Any) -> None:
        for event in message.get("body", b"").decode().split("\n\n"):
            heard.take(event)

    monkeypatch.setattr(Pictures, "_overview", breaks)
    topics = [(name, topic(name)) for name in ("overview", "jobs")]
    await hub.stream({"type": "http"}, never, take, topics=topics, last_event_id=None, once=True)
    for _ in range(2):
        await hub.run_round()
    assert "this is a mistake of async-tracker" in heard.pictures["overview"]["error"]
    assert heard.pictures["jobs"]["facts"]["total"] == 0
    assert caplog.text.count("the screen overview of the page could not be brought up to date") == 1, "once, and not each second"
    assert "secret detail" in caplog.text
    await hub.aclose()


async def test_at_most_eight_screens_are_read_in_a_round_beside_the_overview_and_all_have_their_turn(tracker, monkeypatch):
    monkeypatch.setattr(live, "PERIOD", 3_600.0)
    hub, made = Live(Readings(tracker), ends_after=None), list[str]()
    make = Pictures.make

    async def noted(self: Pictures, asked: Any) -> Any:
        made.append(f"{asked.screen} {asked.sort}")
        return await make(self, asked)

    sorts = ("id", "-id", "function", "-function", "queue", "-queue", "try", "-try", "enqueued", "-enqueued", "timeout", "-timeout")
    async with viewers(hub, 1, "overview", *(f"jobs?sort={sort}" for sort in sorts)):
        monkeypatch.setattr(Pictures, "make", noted)
        rounds = []
        for _ in range(3):
            await hub.run_round()
            rounds.append(made.copy())
            made.clear()
        assert [len(names) for names in rounds] == [9, 9, 9]
        assert all("overview " in names for names in rounds)
        assert {*rounds[0], *rounds[1]} == {"overview ", *(f"jobs {sort}" for sort in sorts)}
    await hub.aclose()


async def test_a_quiet_stream_is_kept_open_by_a_comment(tracker, monkeypatch):
    monkeypatch.setattr(live, "PERIOD", 3_600.0)
    monkeypatch.setattr(live, "_QUIET_FOR", 0.1)
    hub, sent = Live(Readings(tracker), ends_after=None), list[bytes]()

    async def take(message: Any) -> None:
        sent.append(message.get("body", b""))

    looks = asyncio.create_task(hub.stream({"type": "http"}, never, take, topics=[("jobs", topic("jobs"))], last_event_id=None, once=False))
    await wait_until(lambda: any(body.startswith(b": still here\n\n") for body in sent), description="a comment is sent")
    looks.cancel()
    await asyncio.gather(looks, return_exceptions=True)
    await hub.aclose()


async def test_there_is_room_for_two_hundred_viewers_and_the_next_is_told(tracker):
    hub = Live(Readings(tracker))
    hub._viewers = live.VIEWERS_MOST
    with pytest.raises(Problem) as refused:
        await hub.stream({}, None, None, topics=[], last_event_id=None, once=True)  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.code) == (503, "too_many_viewers")


async def test_a_viewer_that_takes_nothing_is_dropped_and_costs_no_memory(tracker, caplog):
    hub = Live(Readings(tracker), send_within=0.3)
    sent: list[Any] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 1:
            await anyio.sleep_forever()

    with caplog.at_level("INFO", logger="async_tracker"), anyio.fail_after(20):
        await hub.stream({"type": "http"}, receive, send, topics=[("jobs", topic("jobs"))], last_event_id=None, once=False)
    assert len(sent) == 2
    assert hub._viewers == 0
    assert "dropped" in caplog.text
    await hub.aclose()


async def test_a_mounted_stream_ends_by_itself(mount):
    async def looks(request: Any) -> Any:
        return {"retry"}

    client = mount(authorize=looks)
    began = time.monotonic()
    response = await client.get("/api/v1/live", params={"topic": "overview"}, timeout=60.0)
    assert time.monotonic() - began > 9.0
    assert response.text.startswith("retry: 1000\n\n")
    assert response.headers["cache-control"] == "no-store, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.text.count("data: ") > 3


HOST = """
import sys
from fastapi import FastAPI
from async_tracker import Tracker
from async_tracker.web import Access, create_app

async def anybody(request):
    return Access.READ

app = FastAPI()
tracker = Tracker(namespace=sys.argv[2], redis_options={"url": sys.argv[1]})
app.mount("/tracker", create_app(tracker, authorize=anybody))

@app.get("/own")
async def own():
    return "theirs"

import uvicorn
uvicorn.run(app, port=int(sys.argv[3]), log_level="info")
"""


async def test_the_host_app_ends_though_ten_look_at_the_page_mounted_in_it(workers, redis_url, namespace, take_port):
    port = take_port()
    host = workers.start_program([sys.executable, "-c", HOST, redis_url, namespace, str(port)])
    await anyio.to_thread.run_sync(host.wait_for_output, "Uvicorn running")
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/tracker/", timeout=30.0))
        heard = [await stack.enter_async_context(following(client, "overview")) for _ in range(10)]
        await wait_until(lambda: all(one.events for one in heard), timeout=30.0, description="ten look")
        assert (await client.get(f"http://127.0.0.1:{port}/own")).text == '"theirs"'
        host.ask_to_leave()
        await anyio.to_thread.run_sync(host.wait)
        assert "graceful shutdown exceeded" not in host.output()  # every stream ended by itself


async def test_serve_ends_at_once_with_a_hundred_viewers(serve):
    served: ServedAlone = serve()
    async with AsyncExitStack() as stack:
        program = await stack.enter_async_context(served.program())
        program._transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None))
        heard = [await stack.enter_async_context(following(program, "overview")) for _ in range(100)]
        await wait_until(lambda: all(one.events for one in heard), timeout=60.0, description="a hundred look")
        served.process.ask_to_leave()
        await anyio.to_thread.run_sync(served.process.wait)
    assert "graceful shutdown exceeded" not in served.process.output()  # the streams ended, and were not cut off
    assert served.process.exit_code in (0, -signal.SIGTERM)
    assert "Traceback" not in served.process.output()


async def test_a_viewer_that_never_reads_holds_nothing_up(serve, tracker):
    served: ServedAlone = serve()
    parts = urlsplit(served.base)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as deaf:
        deaf.sendall(
            f"GET /api/v1/live?topic=overview HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {served.token}\r\n\r\n".encode()
        )
        async with served.program() as program, following(program, "overview") as heard:
            await wait_until(lambda: heard.events > 3, description="others are told all the same")
        served.process.ask_to_leave()
        await anyio.to_thread.run_sync(served.process.wait)


async def test_redis_away_is_told_with_since_when_and_why_and_it_heals_by_itself(serve, wire, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one")
        program = await stack.enter_async_context(serve(url=wire.url).program())
        heard = await stack.enter_async_context(following(program, "jobs"))
        await wait_until(lambda: len(heard.rows("jobs")) == 1, description="the job is told")
        wire.refuse()
        wire.cut()
        await wait_until(lambda: heard.pictures["head"]["facts"]["away"], timeout=30.0, description="Redis is away")
        assert heard.pictures["head"]["facts"]["away"]["why"]
        assert abs(heard.pictures["head"]["facts"]["away"]["since"] / 1000 - time.time()) < 60
        assert [row["id"] for row in heard.rows("jobs")] == ["one"]
        wire.accept()
        await wait_until(lambda: not heard.pictures["head"]["facts"]["away"], timeout=30.0, description="Redis is back")
        await wait_until(lambda: heard.pictures["jobs"]["error"] is None, timeout=30.0, description="and so are the jobs")


async def test_redis_away_at_the_start_is_told_too(serve, wire):
    wire.refuse()
    async with serve(url=wire.url).program() as program, following(program, "overview", "instances") as heard:
        await wait_until(lambda: heard.events, timeout=30.0, description="something is told")
        assert heard.pictures["head"]["facts"]["away"]
        assert heard.pictures["head"]["facts"]["instances"] is None, "which is not 0"
        assert heard.pictures["instances"]["error"]
        wire.accept()
        await wait_until(lambda: "states" in heard.pictures["overview"]["facts"], timeout=30.0, description="it heals")


async def test_a_thousand_instances_and_ten_thousand_jobs(redis_url, redis_client, namespace):
    """What is sent and read each second, as the design of the page says."""
    with named_connections(redis_url, 1000) as connections:
        await write_namespace(redis_client, namespace, connections=connections, jobs_each=10)
        client = redis.asyncio.Redis.from_url(redis_url)
        tracker = Tracker(namespace=namespace, redis=client)
        readings = Readings(tracker)
        pictures = Pictures(readings)
        overview = await pictures.make(topic("overview"))
        assert overview.facts["states"] == {"alive": 1000}
        jobs = await pictures.make(topic("jobs?sort=-function&q=send&limit=100"))
        assert len(jobs.rows) == 100
        assert jobs.facts["every"] == 10_000
        page = await pictures.make(topic("jobs?limit=100"))
        assert len(compact(list(page.rows.values()))) <= 30_000
        rows = await pictures.make(topic("instances?limit=100&q=mail"))
        assert (rows.facts["total"], len(rows.rows)) == (1000, 100)
        await longest_held(lambda: pictures.make(topic("jobs?sort=-function&limit=100")))
        await readings.aclose()
        await client.aclose()


async def test_redis_that_refuses_is_told_on_the_screen_that_cannot_be_read(serve, wire, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one")
        program = await stack.enter_async_context(serve(url=wire.url).program())
        heard = await stack.enter_async_context(following(program, "instances"))
        await wait_until(lambda: heard.rows("instances"), description="the instance is told")
        rule = wire.reply_with_error("NOPERM this user has no permissions to run the command", to={"EVALSHA", "EVAL"})
        await wait_until(lambda: heard.pictures["instances"]["error"], timeout=30.0, description="the refusal is told")
        assert "no permissions" in heard.pictures["instances"]["error"]
        assert len(heard.rows("instances")) == 1
        rule.remove()
        await wait_until(lambda: heard.pictures["instances"]["error"] is None, timeout=30.0, description="it heals")


async def test_a_record_of_another_version_is_named_and_breaks_nothing(serve_here, redis_client, namespace, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one", "strange")
        program = await stack.enter_async_context((await serve_here()).program())
        heard = await stack.enter_async_context(following(program, "jobs"))
        await wait_until(lambda: len(heard.rows("jobs")) == 2, description="both jobs are told")
        await redis_client.set(f"{namespace}:job:strange", '{"schema":99}')
        await wait_until(lambda: heard.pictures["jobs"]["facts"].get("corrupt"), timeout=30.0, description="the record is named")
        assert heard.pictures["jobs"]["facts"]["corrupt"] == ["job:strange"]
        assert [row["id"] for row in heard.rows("jobs")] == ["one"]


async def test_a_redis_that_was_replaced_by_an_empty_one_leaves_no_ghosts(serve_here, redis_url, redis_client, namespace):
    with named_connections(redis_url, 3) as connections:
        await write_namespace(redis_client, namespace, connections=connections, jobs_each=2)
        async with (await serve_here()).program() as program, following(program, "instances", "jobs") as heard:
            await wait_until(lambda: (len(heard.rows("instances")), len(heard.rows("jobs"))) == (3, 6), description="all are told")
            await redis_client.flushdb()
            await wait_until(lambda: not heard.rows("instances") and not heard.rows("jobs"), timeout=30.0, description="nothing is left")
            assert heard.pictures["instances"]["facts"]["total"] == 0


async def test_ten_thousand_orphans_are_counted_and_come_in_pages(serve_here, redis_url, redis_client, namespace):
    with named_connections(redis_url, 100) as connections:
        await write_namespace(redis_client, namespace, connections=connections, jobs_each=100)
        long_ago = dict.fromkeys(await redis_client.zrange(f"{namespace}:instances", 0, -1), 1000)
        await redis_client.zadd(f"{namespace}:instances", long_ago)
    async with (await serve_here()).program() as program:

        async def orphans() -> Any:
            found = (await program.get("api/v1/orphans", params={"limit": 100, "cursor": "9900"})).json()
            return found if found.get("total") == 10_000 else None

        found = await wait_until(orphans, timeout=60.0, poll_interval=0.5, description="all are orphans")
        assert (len(found["orphans"]), found["next_cursor"]) == (100, None)
