"""Settings under which the only thing that a tracker sends within a test is what the journal writes."""

from typing import Any

QUIET: dict[str, Any] = {
    "heartbeat_interval": 60.0,
    "heartbeat_ttl": 180.0,
    "silence_limit": 180.0,
    "sweep_interval": 60.0,
    "watchdog": False,
}
