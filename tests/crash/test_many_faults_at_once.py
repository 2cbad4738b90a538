"""Everything at once, for as long as it is asked for: kills, stops, cuts, orderly ends and blocked loops, under load."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.crash.fleet import QUICK, Fleet
from tests.harness.workers import WorkerProcess

WORKERS = 3
PATIENT = {"max_tries": 100_000, "max_jobs": 5}
UNCOUNTED = {**QUICK, "max_recoveries": 1_000}


class Weather:
    """What may happen to a fleet. Whoever dies or leaves is replaced."""

    def __init__(self, fleet: Fleet, dice: random.Random) -> None:
        self.fleet = fleet
        self.dice = dice
        self.alive: list[WorkerProcess] = []
        self.ends = 0

    async def start(self) -> None:
        self.alive += await self.fleet.start_ready(1, worker=PATIENT, tracker=UNCOUNTED)

    def take(self) -> WorkerProcess:
        return self.alive.pop(self.dice.randrange(len(self.alive)))

    async def kill(self) -> None:
        self.ends += 1
        self.take().kill()
        await self.start()

    async def ask_to_leave(self) -> None:
        self.ends += 1
        leaving = self.take()
        leaving.ask_to_leave()
        await asyncio.to_thread(leaving.wait)
        await self.start()

    async def stop_for_a_while(self) -> None:
        """Longer than three ttl; meanwhile it is left alone, and one less works."""
        stopped = self.take()
        stopped.suspend()
        await asyncio.sleep(self.dice.uniform(0.1, 4 * QUICK["heartbeat_ttl"]))
        stopped.resume()
        self.alive.append(stopped)

    async def cut(self) -> None:
        """Cut the tracker's connections, and let them come back: who is stopped before that cannot be told from who was killed."""
        for client in await self.fleet.pool.client_list():
            if client["name"].startswith("async-tracker"):
                await self.fleet.pool.execute_command("CLIENT", "KILL", "ID", client["id"])
        await asyncio.sleep(1.5)

    async def block(self) -> None:
        await self.fleet.enqueue("block", self.dice.uniform(0.5, 2.5 * QUICK["heartbeat_ttl"]))

    async def load(self) -> None:
        for _ in range(8):
            await self.fleet.enqueue("hold", self.dice.choice((0.001, 0.05, 0.3, 1.5)))


async def endure(fleet: Fleet, *, seconds: float, dice: random.Random) -> None:
    """Let it rain for so long, then let the fleet finish, and hold it to account."""
    weather = Weather(fleet, dice)
    for _ in range(WORKERS):
        await weather.start()
    deeds: list[Callable[[], Awaitable[None]]] = [weather.kill, weather.ask_to_leave, weather.stop_for_a_while, weather.cut, weather.block]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await weather.load()
        await dice.choice(deeds)()
        await asyncio.sleep(dice.uniform(0.0, 0.5))
    await fleet.succeeded(timeout=300)
    await fleet.close(doubled=PATIENT["max_jobs"] * weather.ends)


async def test_a_moment_of_bad_weather_loses_nothing_and_robs_nobody(fleet: Fleet):
    """With the same dice each time. Allowed: lost 0, robbed 0; doubled what each end interrupts in arq's finish."""
    await endure(fleet, seconds=8.0, dice=random.Random(7))


@pytest.mark.soak
async def test_long_bad_weather_loses_nothing_and_robs_nobody(fleet: Fleet, soak_minutes: float):
    """With other dice each time. Allowed: lost 0, robbed 0; doubled what each end interrupts in arq's finish."""
    await endure(fleet, seconds=60 * soak_minutes, dice=random.Random())
