"""Know what every async worker is doing, and never lose a job to a crash.

    from async_tracker import Tracker

    tracker = Tracker(namespace="my_app")

    @tracker.install
    class WorkerSettings:
        functions = [send_email]

Importing starts nothing, reads no environment and loads only what is asked for: ``async-tracker --help`` needs no Redis client.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

__version__ = "0.1.0"

# What type checkers see of this stands in __init__.pyi.
_HOMES = {
    "ConfigError": "async_tracker.errors",
    "CorruptRecord": "async_tracker.errors",
    "LeaseLost": "async_tracker.errors",
    "StorageError": "async_tracker.errors",
    "StorageUnavailable": "async_tracker.errors",
    "TrackerError": "async_tracker.errors",
    "UnsupportedCommand": "async_tracker.errors",
    "OrderFailed": "async_tracker.errors",
    "UnsupportedControl": "async_tracker.errors",
    "Namespace": "async_tracker.namespace",
    "SyncNamespace": "async_tracker.namespace",
    "InstanceState": "async_tracker.policy",
    "Answer": "async_tracker.records",
    "Deploy": "async_tracker.records",
    "Durations": "async_tracker.records",
    "Event": "async_tracker.records",
    "FunctionStats": "async_tracker.records",
    "History": "async_tracker.records",
    "HistoryPoint": "async_tracker.records",
    "InFlight": "async_tracker.records",
    "Instance": "async_tracker.records",
    "Job": "async_tracker.records",
    "Measures": "async_tracker.records",
    "OrderOutcome": "async_tracker.records",
    "Orphan": "async_tracker.records",
    "Quarantined": "async_tracker.records",
    "QueueDepth": "async_tracker.records",
    "QueueSample": "async_tracker.records",
    "Recovery": "async_tracker.records",
    "RecoveryAction": "async_tracker.records",
    "Snapshot": "async_tracker.records",
    "StandingOrder": "async_tracker.records",
    "Abort": "async_tracker.records",
    "AbortOutcome": "async_tracker.records",
    "Stacks": "async_tracker.records",
    "WaitingJobs": "async_tracker.records",
    "ThreadStack": "async_tracker.records",
    "Chain": "async_tracker.records",
    "Stats": "async_tracker.records",
    "CurrentJob": "async_tracker.instance.runs",
    "current_job": "async_tracker.instance.runs",
    "Tracker": "async_tracker.tracker",
}

__all__ = [
    "Answer",
    "ConfigError",
    "CorruptRecord",
    "CurrentJob",
    "Deploy",
    "Durations",
    "Event",
    "FunctionStats",
    "History",
    "HistoryPoint",
    "InFlight",
    "Instance",
    "InstanceState",
    "Job",
    "LeaseLost",
    "Measures",
    "Namespace",
    "OrderOutcome",
    "Orphan",
    "Quarantined",
    "QueueDepth",
    "QueueSample",
    "Recovery",
    "RecoveryAction",
    "Snapshot",
    "StandingOrder",
    "Abort",
    "AbortOutcome",
    "Stacks",
    "WaitingJobs",
    "ThreadStack",
    "Chain",
    "Stats",
    "StorageError",
    "StorageUnavailable",
    "SyncNamespace",
    "Tracker",
    "TrackerError",
    "UnsupportedCommand",
    "OrderFailed",
    "UnsupportedControl",
    "current_job",
]


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'async_tracker' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
