"""dramatiq workers: one middleware, and how a dead worker's messages are given back.

    broker.add_middleware(TrackerMiddleware(Tracker(namespace="my_app")))

dramatiq is imported when the middleware is asked for, so that processes without it can look and recover.
"""

import importlib
from typing import Any

__all__ = ["TrackerMiddleware"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.middleware").TrackerMiddleware
