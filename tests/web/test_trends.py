"""What was, on the page: windows, charts, how queues move, and when a job runs for longer than usual."""

import asyncio
import contextlib
import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import expect

from async_tracker import Tracker
from async_tracker.records import ENDINGS, FunctionStats, History, HistoryPoint, QueueDepth, QueueSample, Stats
from async_tracker.web.pictures import Pictures
from async_tracker.web.readings import Readings
from async_tracker.web.screens import topic
from async_tracker.web.trends import flow_row, flows, point_row
from tests.harness.wait import wait_until
from tests.web.browser import Eyes, is_live
from tests.web.conftest import lets_read

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


async def with_runs(stack: AsyncExitStack, tracker: Tracker, count: int = 20, *, seconds: float = 0.01) -> None:
    """Have some runs of send_email end, one of them badly, and wait until the last quarter of an hour tells of them."""
    await stack.enter_async_context(tracker.register(queue="mail", concurrency=20))
    for number in range(count):
        with contextlib.suppress(ValueError):
            async with tracker.track(f"run {number}", function="send_email", queue="mail"):
                await asyncio.sleep(seconds)
                if number == 0:
                    raise ValueError("the first one fails")

    async def are_counted() -> bool:
        counted = await tracker.stats(window=900)
        return counted.succeeded + counted.failed == count

    await wait_until(are_counted, description="the runs are in the history")


async def test_a_window_gives_percentiles_and_the_history_its_points(mount, make_tracker):
    tracker = make_tracker(heartbeat_interval=0.5)
    async with AsyncExitStack() as stack:
        await with_runs(stack, tracker)
        client = mount(of=tracker, authorize=lets_read)
        (row,) = (await client.get("/api/v1/functions", params={"window": "1h"})).json()["functions"]
        assert (row["function"], row["started"], row["failed"]) == ("send_email", 20, 1)
        assert row["run_time_p95"] >= 0.008
        assert row["per_minute"] > 0
        (row,) = (await client.get("/api/v1/functions")).json()["functions"]
        assert (row["started"], row["run_time_p95"]) == (20, None)
        for asked in ({}, {"function": "send_email"}, {"function": "send_email", "queue": "mail", "window": "15m"}):
            found = (await client.get("/api/v1/history", params=asked)).json()
            assert found["step"] == 60.0
            assert sum(point["succeeded"] for point in found["points"]) == 19, asked
        found = (await client.get("/api/v1/history", params={"function": "unknown"})).json()
        assert sum(point["started"] for point in found["points"]) == 0


@pytest.mark.parametrize("path", ["history?window=2w", "history?since=60", "functions?window=2w", "live?topic=function%3Fwindow%3D1h"])
async def test_what_is_not_kept_or_not_known_is_refused_with_what_to_write(mount, path: str):
    answer = await mount(authorize=lets_read).get(f"/api/v1/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


async def test_the_overview_tells_of_the_last_hour_and_day_and_a_function_of_its_window(make_tracker):
    tracker = make_tracker(heartbeat_interval=0.5)
    async with AsyncExitStack() as stack:
        await with_runs(stack, tracker)
        pictures = Pictures(Readings(tracker))
        facts = (await pictures.make(topic("overview"))).facts
        assert facts["hour"] == {"failed": 1, "ended": 20, "recovered": 0} == facts["day"]
        assert len(facts["points"]) in (60, 61)
        assert sum(point[2] for point in facts["points"] if len(point) > 1) == 19
        assert facts["busiest"][0]["run_time_p95"] >= 0.008
        (row,) = (await pictures.make(topic("functions?window=1h"))).rows.values()
        assert (len(row["trend"]), row["trend"][0], max(row["trend"])) == (8, ".", "z"), "of a young namespace the last quarter"
        (row,) = (await pictures.make(topic("functions"))).rows.values()
        assert row["trend"] == "", "all of time has no course"
        one = (await pictures.make(topic("function?function=send_email&queue=mail&window=15m"))).facts
        assert (one["one"][0]["succeeded"], one["step"]) == (19, 60_000)
        assert sum(point[3] for point in one["points"] if len(point) > 1) == 1


async def test_an_instance_tells_how_many_of_its_runs_have_failed(make_tracker):
    tracker = make_tracker(heartbeat_interval=0.5)
    async with AsyncExitStack() as stack:
        await with_runs(stack, tracker)
        with contextlib.suppress(TimeoutError):
            async with tracker.track("late", function="send_email", queue="mail"):
                raise TimeoutError
        pictures = Pictures(Readings(tracker))

        async def counted() -> tuple[int, int]:
            (row,) = (await pictures.make(topic("instances?sort=-failed"))).rows.values()
            return row["ended"], row["failed"]

        async def all_counted() -> bool:
            return await counted() == (21, 2)

        await wait_until(all_counted, description="a beat has told of both")


async def test_a_job_in_flight_knows_how_long_its_function_takes_as_a_rule(make_tracker):
    tracker = make_tracker(heartbeat_interval=0.5)
    async with AsyncExitStack() as stack:
        await with_runs(stack, tracker)
        await stack.enter_async_context(tracker.track("now", function="send_email", queue="mail"))
        await stack.enter_async_context(tracker.track("new", function="unknown", queue="mail"))

        async def rows() -> dict[str, float | None]:
            picture = await Pictures(Readings(tracker)).make(topic("jobs"))
            return {row["id"]: row["usual"] for row in picture.rows.values()}

        found = await wait_until(lambda: having(rows, {"now", "new"}), description="both are listed")
        assert found["new"] is None
        assert 0.008 <= found["now"] < 5.0


async def having(rows, ids):
    found = await rows()
    return found if found.keys() == ids else None


async def test_only_so_many_readings_of_single_functions_are_kept(tracker):
    readings = Readings(tracker)
    for number in range(80):
        await readings.get("history", "15m", f"function {number}", None)
    assert readings.last("history", "15m", "function 0", None) is None
    assert readings.last("history", "15m", "function 79", None) is not None
    assert len(readings._fresh_until) <= 64


def test_a_step_of_which_nothing_is_known_is_its_moment_alone():
    assert point_row(HistoryPoint(at=AT, is_gap=True)) == [1_777_636_800_000]
    known = HistoryPoint(at=AT, is_gap=False, started=3, failed=1, timed_out=1, busy=2.0, run_time_p50=0.12345)
    assert point_row(known) == [1_777_636_800_000, 3, 0, 2, 0, 2.0, 0.123, None, None, None, None, 0]
    for left, came, shown in ((4, 0, 4), (0, 4, 4), (None, 4, 4), (9, 4, 9)):
        point = HistoryPoint(at=AT, is_gap=False, orphans=left, orphaned=came, instances=7.0)
        assert point_row(point)[-2:] == [7.0, shown], "those of the sample, and those that came and went between two"


def test_what_came_into_a_queue_is_what_left_it_and_what_it_has_grown_by():
    counts = dict.fromkeys((*ENDINGS, "started", "orphaned", "recovered", "run_time", "queue_wait"), 0)
    rows = tuple(FunctionStats(function=name, queue="mail", succeeded=100, retried=50) for name in "ab")
    stats = Stats(functions=rows, window=600.0, **counts)
    points = tuple(
        HistoryPoint(at=AT + timedelta(minutes=minute), is_gap=False, queues=(QueueSample(queue="mail", depth=depth, oldest_wait=None),))
        for minute, depth in ((0, 40), (1, 70))
    )
    found = flows(stats, History(function=None, queue=None, step=60.0, points=points))
    now = QueueDepth(queue="mail", library="arq", depth=140, due=140, oldest_wait=1.0)
    now_ms = round((AT + timedelta(minutes=10)).timestamp() * 1000)
    assert flow_row(now, found["mail"], now_ms=now_ms) == {"in": 30.0, "out": 20.0}
    assert flow_row(now, found.get("other"), now_ms=now_ms) == {"in": None, "out": None}


async def test_a_function_opens_with_its_charts_and_a_slow_run_of_it_is_marked(
    serve_here, eyes: Eyes, make_tracker, redis_client, namespace
):
    tracker = make_tracker(heartbeat_interval=0.5)
    seconds, _ = await redis_client.time()
    for minute in range(seconds // 60 - 5, seconds // 60):
        await redis_client.hset(f"{namespace}:samples:{minute // 60}", f"{minute % 60}:asyncio", "[1,1,20,{},1,3,2]")
    async with AsyncExitStack() as stack:
        await with_runs(stack, tracker)
        await stack.enter_async_context(tracker.track("slow", function="send_email", queue="mail", timeout=3_600.0))
        await stack.enter_async_context(tracker.track("late", function="send_email", queue="mail", timeout=0.001))
        served = await serve_here()
        page = await eyes.open(served.url)
        await is_live(page)
        await expect(page.locator(".chart-panel .chart rect.good").first).to_be_attached()
        for card in ("Instances", "Orphans"):
            await expect(page.locator(".card", has_text=card).locator(".spark polyline")).to_have_count(1)
        await page.locator("table a", has_text="send_email").click()
        await expect(page.locator("#drawer .chart-panel")).to_have_count(2)  # no wait is known
        await expect(page.locator("#drawer .facts")).to_contain_text("p95")
        await page.locator("#drawer .frame").first.press("ArrowLeft")
        await expect(page.locator("#drawer .told").first).to_contain_text("·")
        await page.keyboard.press("Escape")
        await page.click("nav a[data-screen=functions]")
        for window in ("15 min", "24 h", "7 d", "all", "1 h"):
            await page.get_by_role("button", name=window, exact=True).click()
            await expect(page.locator("tbody tr", has_text="send_email")).to_contain_text("19")
        await expect(page.locator("tbody tr", has_text="send_email").locator(".spark")).to_be_visible()
        await page.goto(f"{served.base}jobs")
        slow, late = (page.locator("tbody tr", has_text=name) for name in ("slow", "late"))
        await expect(slow.locator("time.warn-text")).to_be_visible()
        await expect(slow).to_contain_text(re.compile("in 59 min"))  # its deadline, to which the browser counts
        await expect(late.locator("time.bad-text")).to_have_count(2)
        await expect(late.locator("time.bad-text").last).to_have_text(re.compile(r"\d+ \w+ ago"))
