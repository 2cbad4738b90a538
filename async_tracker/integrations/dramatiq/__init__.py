"""dramatiq workers: one middleware, and how a dead worker's messages are given back.

    broker.add_middleware(TrackerMiddleware(Tracker(namespace="my_app")))

dramatiq is imported when the middleware is asked for, so that processes without it can look and recover.
"""

import importlib
from typing import Any

_PLACES = {"Aborted": "interruption", "TrackerMiddleware": "middleware"}

__all__ = ["Aborted", "TrackerMiddleware"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
