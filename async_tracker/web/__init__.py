"""The web page: ``app.mount("/tracker", create_app(tracker, authorize=who))`` shows a namespace, and acts on it where that is allowed."""

from async_tracker.web.access import Access, local_only
from async_tracker.web.app import create_app

__all__ = ["Access", "create_app", "local_only"]
