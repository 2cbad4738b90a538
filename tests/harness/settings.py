"""Settings of a tracker that make a test say what it means, on any machine."""

from typing import Any

KNOWN: dict[str, Any] = {"hook_timeout": 30.0}
"""Under which `register` returns when Redis knows the instance. By default it waits for a quarter of a second, and a busy machine may
need more: then it goes on in the background, and a test that begins with what Redis knows begins too early."""

QUIET: dict[str, Any] = {
    **KNOWN,
    "heartbeat_interval": 60.0,
    "heartbeat_ttl": 180.0,
    "silence_limit": 180.0,
    "sweep_interval": 60.0,
    "watchdog": False,
}
"""Under which the only thing that a tracker sends within a test is what the journal writes."""
