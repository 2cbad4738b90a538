"""``serve``: the page, as a process of its own."""

import webbrowser
from pathlib import Path

from async_tracker.cli.endings import Ending
from async_tracker.cli.reach import make_tracker
from async_tracker.cli.target import Target
from async_tracker.cli.wording import remark, say, say_document
from async_tracker.web.serving import served


async def serve(
    target: Target,
    *,
    host: str,
    port: int,
    root_path: str,
    public_urls: tuple[str, ...],
    allow_actions: bool,
    token_file: str | None,
    open_browser: bool,
    title: str | None,
    environment: str | None,
) -> int:
    """Serve the page until SIGTERM or Ctrl-C."""
    async with (
        make_tracker(target) as tracker,
        served(
            tracker,
            host=host,
            port=port,
            root_path=root_path,
            public_urls=public_urls,
            allows_actions=allow_actions,
            token_file=Path(token_file) if token_file is not None else None,
            title=title,
            environment=environment,
        ) as serving,
    ):
        shown = serving.url if token_file is None else serving.url.partition("?")[0]
        if target.as_json:
            say_document({"url": shown, "listening": serving.address, "namespace": tracker.namespace}, indented=False)
        else:
            say(f"The page of namespace {tracker.namespace}: {shown}")
            if token_file is not None:
                remark(f"Add ?token= and what stands in {token_file}.")
            if not allow_actions:
                remark("It only shows: --allow-actions lets people recover jobs and decide about quarantined ones.")
        if open_browser:
            webbrowser.open(serving.url)
        await serving.task
    return Ending.OK
