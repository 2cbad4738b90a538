"""The document and what it loads: small, named by hash, compressed once."""

import gzip
import re
import time
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from async_tracker.records import FunctionStats
from async_tracker.web.pages import Pages, as_sent
from async_tracker.web.readings import Readings
from async_tracker.web.screens import SCREENS, function_row
from tests.web.conftest import lets_read

SENT_MOST = 40 * 1024
IN_THE_WHEEL_MOST = 160 * 1024


async def test_everything_that_a_browser_is_sent_is_small(mount):
    client = mount(authorize=lets_read)
    sent, whole = 0, 0
    page = await client.get("/", headers={"accept-encoding": "gzip"})
    names = {*re.findall(r'"(assets/[^"]+)"', page.text), re.findall(r'"(assets/[0-9a-f]+)/', page.text)[0] + "/sharer.js"}
    for name in ("", *names):
        async with client.stream("GET", f"/{name}", headers={"accept-encoding": "gzip"}) as answer:
            assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip"), name
            raw = b"".join([part async for part in answer.aiter_raw()])
        sent += len(raw)
        whole += len(gzip.decompress(raw))
    assert len(names) >= 20
    assert sent <= SENT_MOST, sent
    assert whole <= IN_THE_WHEEL_MOST


async def test_each_screen_has_its_address_and_a_script_of_its_name(mount):
    client = mount(authorize=lets_read)
    pages = Pages()
    for screen in ("overview", *SCREENS):
        assert (await client.get("/" if screen == "overview" else f"/{screen}")).status_code == 200
        request = Request({"type": "http", "headers": []})
        assert pages.asset(pages.version, f"{screen}.js", request) is not None
    assert (await client.get("/overviews")).status_code == 404


async def test_an_asset_of_another_version_is_not_served(mount):
    answer = await mount(authorize=lets_read).get("/assets/000000000000/main.js")
    assert answer.status_code == 404
    assert "load it again" in answer.json()["error"]["message"]


def test_what_is_left_out_of_a_script_is_no_code():
    source = (
        "const a = 1; /* in line */ const b = 2;\n  // gone\n/** @type {string} */\nconst c = 'https://x//y';  // gone too\nr(/\\/\\//);\n"
    )
    assert as_sent("x.js", source.encode()) == b"const a=1; /* in line */ const b=2;\nconst c='https://x//y';\nr(/\\/\\//);"
    assert as_sent("x.css", b"/** kept */") == b"/** kept */"


async def test_the_clock_of_the_readings_is_the_servers(tracker, redis_client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("async_tracker.web.readings.time", SimpleNamespace(time=lambda: time.time() + 3_600, monotonic=time.monotonic))
    readings = Readings(tracker)
    snapshot = (await readings.get("snapshot")).value
    read, now_ms = snapshot.taken_at.timestamp() * 1000, readings.now_ms()
    seconds, microseconds = await redis_client.time()
    assert read - 2 <= now_ms <= seconds * 1000 + microseconds / 1000 + 2
    await readings.aclose()


def test_a_percentile_that_is_not_known_is_not_in_the_row_and_one_that_is_stands_there():
    """The totals of all time have none: then the overview shows the mean."""
    row = function_row(FunctionStats(function="send", queue="q", started=2, succeeded=2, run_time=3.0, run_time_p95=1.5), {})
    assert (row["run"], row["run_time_p95"]) == (1.5, 1.5)
    assert "run_time_p50" not in row
