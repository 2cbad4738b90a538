"""An arq worker that is given the conformance jobs."""

from typing import Any, ClassVar

from arq.connections import RedisSettings

from tests.integrations.conformance import jobs


async def hold(ctx: dict[str, Any], seconds: float, until: str = "") -> None:
    await jobs.hold(seconds, until)


async def fail(ctx: dict[str, Any]) -> None:
    await jobs.fail()


async def die(ctx: dict[str, Any], after: float = 0.0) -> None:
    await jobs.die(after)


@jobs.make_tracker().install
class WorkerSettings:
    functions: ClassVar = [hold, fail, die]
    redis_settings = RedisSettings.from_dsn(jobs.URL)
    poll_delay = 0.05
