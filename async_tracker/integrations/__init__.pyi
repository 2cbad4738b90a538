from async_tracker.connections.calls import call, load_script, run_script
from async_tracker.connections.link import Link
from async_tracker.connections.replies import text
from async_tracker.instance.duty import Controls
from async_tracker.instance.host import host_id, hostname, versions
from async_tracker.instance.runtime import Runtime
from async_tracker.integrations.footing import Footing
from async_tracker.integrations.registry import Library
from async_tracker.integrations.rights import Rights, commands_of
from async_tracker.recovery.adapter import Adapter, Claim, QuarantinedPayload, Released
from async_tracker.store.instance_record import Description
from async_tracker.store.run_record import RunRecord

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
