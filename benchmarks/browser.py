"""What the page costs the browser that shows it: the tasks of the main thread of the system's Chromium, as its own trace tells them."""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Browser, async_playwright

from async_tracker import Tracker
from async_tracker.web.serving import served

FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run".split()
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""

_SETTLES = 3.0
_MAIN_THREAD = "CrRendererMain"
_TRACED = ["-*", "toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]
"""Without the profiler of scripts, whose start alone holds the thread for 70 ms."""
_DRAWN = ".live.ok", ".screen :is(tbody tr, .card)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one screen costs the main thread while it is looked at, after it was first drawn."""

    longest_ms: float
    """The longest task: for so long a click may have to wait."""
    share: float
    """Of one core."""
    updates: int
    """Tasks in which scripts of the page changed it; the clock's, once a second, are among them."""


async def look_at(tracker: Tracker, screens: Mapping[str, str], *, seconds: float) -> dict[str, Seen]:
    """Look at each of these topics with a browser for so long; nothing is found where there is no browser."""
    if not CHROMIUM:
        return {}
    async with served(tracker, port=0, handles_signals=False) as serving, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            return {name: await _look(browser, _address(serving.url, topic), seconds=seconds) for name, topic in screens.items()}
        finally:
            await browser.close()


def _address(url: str, topic: str) -> str:
    """Give the address of a screen, with the token.

    >>> _address("http://127.0.0.1:80/?token=x", "jobs?limit=100"), _address("http://127.0.0.1:80/?token=x", "overview")
    ('http://127.0.0.1:80/jobs?limit=100&token=x', 'http://127.0.0.1:80/?token=x')
    """
    base, _, token = url.partition("?")
    screen, _, query = topic.partition("?")
    return f"{base}{'' if screen == 'overview' else screen}?{'&'.join(part for part in (query, token) if part)}"


async def _look(browser: Browser, url: str, *, seconds: float) -> Seen:
    page = await browser.new_page(viewport={"width": 1440, "height": 900})
    await page.goto(url)
    for selector in _DRAWN:
        await page.wait_for_selector(selector, timeout=60_000)
    await asyncio.sleep(_SETTLES)
    await browser.start_tracing(page=page, categories=_TRACED)
    await asyncio.sleep(seconds)
    trace = json.loads(await browser.stop_tracing())
    await page.close()
    return _seen(trace["traceEvents"], seconds=seconds)


def _seen(events: list[dict[str, Any]], *, seconds: float) -> Seen:
    """Add up the tasks of the threads in which pages live.

    >>> named = {"ph": "M", "name": "thread_name", "pid": 1, "tid": 2, "args": {"name": "CrRendererMain"}}
    >>> tasks = [{"ph": "X", "name": "RunTask", "pid": 1, "tid": tid, "dur": dur} for tid, dur in ((2, 3_000), (2, 500), (9, 70_000))]
    >>> script = {"ph": "X", "name": "FunctionCall", "pid": 1, "tid": 2, "dur": 100}
    >>> _seen([named, *tasks, script], seconds=1.0)
    Seen(longest_ms=3.0, share=0.0035, updates=1)
    """
    threads = {(item["pid"], item["tid"]) for item in events if item["name"] == "thread_name" and item["args"]["name"] == _MAIN_THREAD}
    own = [item for item in events if item.get("ph") == "X" and (item["pid"], item["tid"]) in threads]
    # By the clock of the thread, where the trace has that: on a machine with other work a task is interrupted.
    lasted = [item.get("tdur", item["dur"]) / 1000 for item in own if item["name"] == "RunTask"]
    calls = sum(item["name"] == "FunctionCall" for item in own)
    return Seen(longest_ms=max(lasted, default=0.0), share=sum(lasted) / 1000 / seconds, updates=calls)
