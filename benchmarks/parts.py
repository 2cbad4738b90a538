"""Where the microseconds of tracking go: timers around the parts of it, inside a worker that does everything else as well."""

import functools
import time
from collections.abc import Callable
from typing import Any

from async_tracker.instance.writer import Writer
from async_tracker.integrations.arq import claims
from async_tracker.integrations.arq.tracked_worker import TrackedWorker

HOOKS = {
    "on_job_start": "put the run in flight",
    "on_job_end": "take it out of flight",
    "after_job_end": "count it",
}
CLAIM = "name the claim, with arq's own part of it"
LOOK = "look for what is to be written"


def time_parts(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Put timers around the parts of a tracked worker's arguments.

    Returns a copy of the arguments, and a dict that grows by the seconds that each part takes, the timer's own included.
    """
    seconds = dict.fromkeys([*HOOKS.values(), CLAIM, LOOK], 0.0)
    setattr(Writer, "_check", _timed(Writer._check, LOOK, seconds))  # noqa: B010 - a method is not assigned where types are checked
    name_pipelines, make_hook = claims._naming_for_one, TrackedWorker._make_hook

    def naming(of: claims.Claims) -> Callable[[Any], Any]:
        make_kind = name_pipelines(of)

        def make_timed_kind(kind: Any) -> Any:
            named = make_kind(kind)
            named.psetex = _timed(named.psetex, CLAIM, seconds)
            return named

        return make_timed_kind

    def making(self: TrackedWorker, kind: str, *args: Any, **kwargs: Any) -> Any:
        return _timed_hook(make_hook(self, kind, *args, **kwargs), HOOKS[kind], seconds)

    setattr(claims, "_naming_for_one", naming)  # noqa: B010
    setattr(TrackedWorker, "_make_hook", making)  # noqa: B010
    return dict(arguments), seconds


def _timed(part: Callable[..., Any], label: str, seconds: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(part)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return part(*args, **kwargs)
        finally:
            seconds[label] += time.perf_counter() - began

    return timed


def _timed_hook(hook: Callable[..., Any], label: str, seconds: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(hook)
    async def timed(ctx: Any) -> None:
        began = time.perf_counter()
        try:
            await hook(ctx)
        finally:
            seconds[label] += time.perf_counter() - began

    return timed
