"""The metrics for Prometheus, beside the page: with the extra ``prometheus``, and for those who may look at the page."""

from importlib import import_module
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from async_tracker.tracker import Tracker
from async_tracker.web.answers import Problem


class Exposition:
    """Answers scrapes. The library that writes them is loaded with the first one: the page does without it."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._library: Any = None
        self._collector: Any = None

    async def answer(self, request: Request) -> Response:
        """Give the metrics. Raises Problem where their library is not installed."""
        if self._collector is None:
            try:
                self._library = import_module("async_tracker.metrics.prometheus")
            except ModuleNotFoundError as exc:
                if not (exc.name or "").startswith("prometheus_client"):
                    raise
                raise Problem(501, "not_installed", 'metrics need an extra: pip install "async-tracker[prometheus]"') from exc
            self._collector = self._library.Collector(self._tracker)
        headers = {"content-type": self._library.CONTENT_TYPE, "cache-control": "no-store"}
        return Response(await self._collector.exposition(), headers=headers)
