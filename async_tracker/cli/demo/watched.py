"""The show with the page beside it: the kill is watched in a browser."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from async_tracker.cli.demo import show
from async_tracker.cli.demo.screen import Screen
from async_tracker.cli.demo.stage import Stage
from async_tracker.cli.target import Target
from async_tracker.web.serving import served


async def demo(target: Target, *, quick: bool, keep: bool, workers: str, port: int) -> int:
    """Show it all, with the page beside it, until Ctrl-C."""

    @asynccontextmanager
    async def page(set_up: Stage, screen: Screen) -> AsyncIterator[None]:
        serving = served(set_up.tracker, port=port, title="demo", environment="demo", allows_actions=True, handles_signals=False)
        async with serving as found:
            screen.tell(f"watch it in a browser: {found.url}", style="bold")
            yield

    return await show.demo(target, quick=quick, keep=True, workers=workers, beside=page)
