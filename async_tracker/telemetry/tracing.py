"""What traces runs, as those see it who report them; and how it is loaded, where it is wanted."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from async_tracker.errors import ConfigError


class Traceable(Protocol):
    """A run, as far as its span tells of it."""

    job_id: str
    token: str
    instance_id: str
    library: str
    job_try: int
    function: str | None
    queue: str | None
    due_at_ms: int | None
    started_at_ms: int


class Traced(Protocol):
    """One run that is being traced. None of its methods raises."""

    traceparent: str | None
    """Its span, as the W3C writes it; None where nothing records spans."""

    def link(self, traceparent: str | None) -> None:
        """Say that the run follows one that was lost with its worker; None changes nothing."""
        ...

    def end(self, outcome: str, error: BaseException | None = None) -> None:
        """The run has ended. To be called in the task, or thread, in which it began."""
        ...


class Tracing(Protocol):
    """Traces the runs of a process."""

    def begin(self, run: Traceable, carrier: Mapping[str, Any] | None = None) -> Traced:
        """A run begins in this task, or thread. ``carrier`` is what came with the job from where it was enqueued. Never raises."""
        ...


def load_tracing(*, is_wanted: bool) -> Tracing | None:
    """Give what traces runs; None, and nothing is loaded, unless it is wanted. Raises ConfigError where the extra is missing."""
    if not is_wanted:
        return None
    try:
        tracing: Tracing = import_module("async_tracker.telemetry.spans").Spans()
    except ModuleNotFoundError as exc:
        if not (exc.name or "").startswith("opentelemetry"):
            raise
        raise ConfigError('telemetry=True needs an extra: pip install "async-tracker[otel]"') from exc
    return tracing
