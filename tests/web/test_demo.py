"""``async-tracker demo --web``: the kill is watched in a browser."""

import re
import sys

import anyio
import httpx

from tests.harness.wait import wait_until


async def test_the_page_beside_the_demo_shows_the_kill(workers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("d")
    command = [sys.executable, "-m", "async_tracker.cli", "demo", "--web", "--quick"]
    demo = workers.start_program(command, env={"TMPDIR": str(folder)})
    await anyio.to_thread.run_sync(demo.wait_for_output, "watch it in a browser")
    found = re.search(r"(http://127\.0\.0\.1:\d+/)\?token=(\S+)", demo.output())
    assert found is not None
    async with httpx.AsyncClient(base_url=found[1], headers={"authorization": f"Bearer {found[2]}"}, timeout=20.0) as client:

        async def told() -> bool:
            events = (await client.get("api/v1/events", params={"type": "instance_dead,recovered"})).json().get("events", [])
            return {event["type"] for event in events} == {"instance_dead", "recovered"}

        await wait_until(told, timeout=90.0, poll_interval=0.5, description="the page tells of the kill and of what was recovered")
    demo.ask_to_leave()
    assert await anyio.to_thread.run_sync(demo.wait) == 130
    assert list(folder.iterdir()) == []
