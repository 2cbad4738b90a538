"""One package per worker library, and the one door for authors of integrations: all that an integration is written with.

    from async_tracker.integrations import Claim, Description, Library, run_script

A name is loaded when it is asked for, so that a process without a worker library, or a request for help, loads nothing of it.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

# What type checkers see of this stands in __init__.pyi.
_HOMES = {
    "Adapter": "async_tracker.recovery.adapter",
    "Claim": "async_tracker.recovery.adapter",
    "QuarantinedPayload": "async_tracker.recovery.adapter",
    "Released": "async_tracker.recovery.adapter",
    "Footing": "async_tracker.integrations.footing",
    "Library": "async_tracker.integrations.registry",
    "Rights": "async_tracker.integrations.rights",
    "commands_of": "async_tracker.integrations.rights",
    "Runtime": "async_tracker.instance.runtime",
    "Controls": "async_tracker.instance.duty",
    "host_id": "async_tracker.instance.host",
    "hostname": "async_tracker.instance.host",
    "versions": "async_tracker.instance.host",
    "Description": "async_tracker.store.instance_record",
    "RunRecord": "async_tracker.store.run_record",
    "Link": "async_tracker.connections.link",
    "call": "async_tracker.connections.calls",
    "load_script": "async_tracker.connections.calls",
    "run_script": "async_tracker.connections.calls",
    "text": "async_tracker.connections.replies",
}

__all__ = [
    "Adapter",
    "Claim",
    "Controls",
    "Description",
    "Footing",
    "Library",
    "Link",
    "QuarantinedPayload",
    "Released",
    "Rights",
    "RunRecord",
    "Runtime",
    "call",
    "commands_of",
    "host_id",
    "hostname",
    "load_script",
    "run_script",
    "text",
    "versions",
]


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'async_tracker.integrations' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
