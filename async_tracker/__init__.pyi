from async_tracker.errors import (
    ConfigError,
    CorruptRecord,
    LeaseLost,
    StorageError,
    StorageUnavailable,
    TrackerError,
    UnsupportedCommand,
)
from async_tracker.instance.runs import CurrentJob, current_job
from async_tracker.namespace import Namespace, SyncNamespace
from async_tracker.policy import InstanceState
from async_tracker.records import (
    Deploy,
    Event,
    FunctionStats,
    History,
    HistoryPoint,
    Instance,
    Job,
    Orphan,
    Quarantined,
    QueueDepth,
    QueueSample,
    Recovery,
    RecoveryAction,
    Snapshot,
    Stats,
)
from async_tracker.tracker import Tracker

__version__: str

__all__ = [
    "ConfigError",
    "CorruptRecord",
    "CurrentJob",
    "Deploy",
    "Event",
    "FunctionStats",
    "History",
    "HistoryPoint",
    "Instance",
    "InstanceState",
    "Job",
    "LeaseLost",
    "Namespace",
    "Orphan",
    "Quarantined",
    "QueueDepth",
    "QueueSample",
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
