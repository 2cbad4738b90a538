"""Know what every async worker is doing, and never lose a job to a crash.

    from async_tracker import Tracker

    tracker = Tracker(namespace="my_app")

    @tracker.install
    class WorkerSettings:
        functions = [send_email]

Importing starts nothing and reads no environment.
"""

from async_tracker.errors import (
    ConfigError,
    CorruptRecord,
    LeaseLost,
    StorageError,
    StorageUnavailable,
    TrackerError,
    UnsupportedCommand,
)
from async_tracker.namespace import Namespace, SyncNamespace
from async_tracker.policy import InstanceState
from async_tracker.records import (
    Event,
    FunctionStats,
    Instance,
    Job,
    Orphan,
    Quarantined,
    QueueDepth,
    Recovery,
    RecoveryAction,
    Snapshot,
    Stats,
)
from async_tracker.runs import CurrentJob, current_job
from async_tracker.tracker import Tracker

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "CorruptRecord",
    "CurrentJob",
    "Event",
    "FunctionStats",
    "Instance",
    "InstanceState",
    "Job",
    "LeaseLost",
    "Namespace",
    "Orphan",
    "Quarantined",
    "QueueDepth",
    "Recovery",
    "RecoveryAction",
    "Snapshot",
    "Stats",
    "StorageError",
    "StorageUnavailable",
    "SyncNamespace",
    "Tracker",
    "TrackerError",
    "UnsupportedCommand",
    "current_job",
]
