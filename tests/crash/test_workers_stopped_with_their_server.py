"""Workers and server stop together and go on together: a laptop that sleeps, a virtual machine or a set of containers that is paused."""

import asyncio
import os
import signal
from typing import Any

from tests.crash.conftest import MakeFleet
from tests.crash.fleet import QUICK

SLEEPS: dict[str, Any] = {**QUICK, "silence_limit": 2.0}


async def test_a_fleet_that_is_stopped_together_with_its_server_robs_nobody_when_it_goes_on(make_server: Any, make_fleet: MakeFleet):
    """All heartbeats are as old as the pause when it ends: who looks first must not take that for silence. Allowed: lost 0, robbed 0."""
    server = make_server()
    fleet = await make_fleet(server.url)
    workers = await fleet.start_ready(4, tracker=SLEEPS, worker={"max_jobs": 2})
    ids = {(await fleet.registered(worker)).instance_id for worker in workers}
    jobs = await fleet.enqueue_many(8, "hold", 12.0)
    for job_id in jobs:
        await fleet.running(job_id)
    for _ in range(2):
        for worker in workers:
            worker.suspend()
        os.kill(server.pid, signal.SIGSTOP)
        await asyncio.sleep(2 * SLEEPS["silence_limit"])
        os.kill(server.pid, signal.SIGCONT)
        for worker in workers:  # one after the other, so that the first has the time to look before the others can beat
            worker.resume()
            await asyncio.sleep(SLEEPS["sweep_interval"] * 1.5)
        await asyncio.sleep(SLEEPS["heartbeat_ttl"])
    await fleet.succeeded()
    assert {(await fleet.registered(worker)).instance_id for worker in workers} == ids
    account = await fleet.close()
    assert len(account.runs) == len(jobs)
