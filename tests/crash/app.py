"""The arq worker that the crash tests kill: every job writes its start and its end to the ledger, past Redis.

All that a test wants of it comes in one variable, ``TEST_APP``: JSON with the urls, the ledger's path, the tracker's settings (null: an
untracked worker) and arguments for arq's worker.
"""

import asyncio
import ctypes
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from arq import cron
from arq.connections import RedisSettings

from async_tracker import LeaseLost, Tracker, current_job
from tests.harness.ledger import Ledger
from tests.harness.wait import wait_until

UNCONFIGURED: dict[str, Any] = {"redis_url": "redis://127.0.0.1:1/0", "ledger": os.devnull, "tracker": None, "worker": {}}
CONFIG: dict[str, Any] = json.loads(os.environ["TEST_APP"]) if "TEST_APP" in os.environ else UNCONFIGURED
LEDGER = Ledger(CONFIG["ledger"])

Ctx = dict[str, Any]
_MOUTHFUL_BYTES = 4 * 2**20


async def hold(ctx: Ctx, seconds: float) -> None:
    """Run for a while, as a job that awaits does."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        await asyncio.sleep(seconds)


async def until_told(ctx: Ctx, path: str) -> None:
    """Run until the file exists: for as long as the test needs, however long the machine takes for it."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        await wait_until(Path(path).exists, timeout=600.0, poll_interval=0.02, description="the test has told it to end")


async def interrupted(ctx: Ctx, again: float = 0.1) -> None:
    """Run until the worker ends; the next time for a moment only."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        await asyncio.sleep(600.0 if ctx["job_try"] == 1 else again)


async def block(ctx: Ctx, seconds: float) -> None:
    """Block the event loop for as long, as a job does that calculates."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        time.sleep(seconds)


async def block_until_told(ctx: Ctx, path: str) -> None:
    """Block the event loop until the file exists: for as long as the test needs, at most for a minute. It waits in a line of this file."""
    deadline = time.monotonic() + 60.0
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        while not Path(path).exists() and time.monotonic() < deadline:
            time.sleep(0.02)


async def stubborn_until_told(ctx: Ctx, path: str) -> None:
    """Outlive every cancellation, arq's timeout included, until the file of this try exists: ``path``, a hyphen, and its number."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        while not Path(f"{path}-{ctx['job_try']}").exists():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue


async def stubborn(ctx: Ctx, seconds: float) -> None:
    """Outlive every cancellation, arq's timeout included."""
    deadline = time.monotonic() + seconds
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        while time.monotonic() < deadline:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue


async def pill(ctx: Ctx) -> None:
    """End the process in the first statement."""
    os._exit(3)


async def hold_the_lock(ctx: Ctx, seconds: int) -> None:
    """Block the loop as an extension does that never lets go of the interpreter's lock."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        ctypes.PyDLL(None).sleep(seconds)


async def noop(ctx: Ctx) -> None:
    """Do nothing, and write nothing down."""


async def victim(ctx: Ctx, folder: str) -> None:
    """Say who runs it, so that somebody can kill the process as the kernel does when memory runs out."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        Path(folder, f"{os.getpid()}.runs").touch()
        await asyncio.sleep(600)


async def hungry(ctx: Ctx, limit_bytes: int) -> None:
    """Eat memory until somebody kills the process, as the kernel does; at a bound of its own, which keeps the machine from harm, wait."""
    eaten = []
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        for _ in range(limit_bytes // _MOUTHFUL_BYTES):
            eaten.append(bytearray(os.urandom(1) * _MOUTHFUL_BYTES))  # written to, so that it is really there
            await asyncio.sleep(0.01)
        await asyncio.sleep(600)


async def quits(ctx: Ctx) -> None:
    """Leave as sys.exit() does: neither hook nor shutdown follows."""
    if ctx["job_try"] == 1:
        LEDGER.killed(os.getpid())
        raise SystemExit(4)
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        pass


def _busy_child(seconds: float, folder: str) -> None:
    Path(folder, f"{os.getpid()}.child").touch()
    time.sleep(seconds)


async def forking(ctx: Ctx, seconds: float, folder: str) -> None:
    """Keep two forked children busy, as a job with a process pool does; they live on when the worker is killed. Each leaves a file."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        if ctx["job_try"] > 1:
            return
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(pool, _busy_child, seconds, folder) for _ in range(2)))


async def forking_blocked(ctx: Ctx, seconds: float, path: str) -> None:
    """Fork while the loop is blocked, when it is the watchdog that speaks."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        if ctx["job_try"] > 1:
            return
        time.sleep(seconds / 2)
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        Path(path).write_text(str(child))
        time.sleep(seconds)


async def careful(ctx: Ctx, seconds: float, path: str) -> None:
    """Wait, then ask whether the job is still ours before what must not happen twice; write down what came of it."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        job = current_job()
        assert job is not None
        if ctx["job_try"] > 1:
            return
        for _ in range(int(seconds / 0.02)):
            if not job.owned:
                break
            await asyncio.sleep(0.02)
        noticed = not job.owned
        try:
            await job.ensure_owned()
            Path(path).write_text(f"ours noticed={noticed} id={job.instance_id}")
        except LeaseLost:
            Path(path).write_text(f"lost noticed={noticed} id={job.instance_id}")


async def ticks(ctx: Ctx) -> None:
    """A cron job that takes longer than its worker lives."""
    with LEDGER.run(ctx["job_id"], attempt=ctx["job_try"]):
        await asyncio.sleep(0.2 if ctx["job_try"] > 1 else CONFIG["cron_seconds"])


async def slow_hook(ctx: Ctx) -> None:
    """A user's own hook that takes its time where the test says so."""
    if (path := CONFIG.get("hook_flag")) is not None and ctx["job_try"] == 1:
        Path(path).touch()
        await asyncio.sleep(CONFIG["hook_seconds"])


def _settings() -> type:
    attributes: dict[str, Any] = {
        "functions": [
            noop,
            hold,
            until_told,
            interrupted,
            block,
            block_until_told,
            stubborn_until_told,
            stubborn,
            pill,
            victim,
            hungry,
            quits,
            forking,
            forking_blocked,
            careful,
            hold_the_lock,
        ],
        "redis_settings": RedisSettings.from_dsn(CONFIG["redis_url"]),
        "poll_delay": 0.1,
        **CONFIG["worker"],
    }
    if CONFIG.get("cron_seconds") is not None:
        attributes["cron_jobs"] = [cron(ticks, run_at_startup=True, second={0, 30}, max_tries=5)]
    for name in CONFIG.get("slow_hooks", ()):
        attributes[name] = slow_hook
    settings = type("WorkerSettings", (), attributes)
    if CONFIG["tracker"] is None:
        return settings
    options = {"url": CONFIG["tracker_url"]} if CONFIG.get("tracker_url") else None
    tracker = Tracker(namespace=CONFIG["namespace"], redis_options=options, **CONFIG["tracker"])
    installed: type = tracker.install(settings)
    return installed


WorkerSettings = _settings()
