"""A steady stream of jobs of every kind."""

import asyncio
import itertools
import random
import secrets
from collections.abc import Sequence
from typing import Any

from async_tracker.cli.demo.crews import Crew
from async_tracker.cli.demo.ledger import Ledger

BEAT = 0.25
"""Seconds between two handfuls of jobs."""


class Load:
    """Enqueues jobs, and writes each into the ledger once it is queued."""

    def __init__(self, crews: Sequence[Crew], *, ledger: Ledger, slow_for: float) -> None:
        self._crews = crews
        self._ledger = ledger
        self._slow_for = slow_for
        self._mark = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self._random = random.Random(1)  # the same show every time

    async def run(self) -> None:
        """Enqueue for ever."""
        for beat in itertools.count():
            await self.enqueue("quick")
            if beat % 2 == 0:
                await self.enqueue("slow", self._slow_for * self._random.uniform(0.8, 1.2))
            if beat % 5 == 1:
                await self.enqueue("flaky")
            if beat % 7 == 3:
                await self.enqueue("failing")
            await asyncio.sleep(BEAT)

    async def enqueue(self, function: str, *arguments: Any) -> None:
        """Enqueue one job for the workers of every library."""
        for crew in self._crews:
            job_id = f"{function}-{self._mark}-{next(self._numbers)}"
            await crew.enqueue(job_id, function, *arguments)
            self._ledger.enqueued(job_id)
