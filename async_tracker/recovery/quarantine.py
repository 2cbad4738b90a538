"""What is kept of a quarantined job, and what is told to the caller who awaits it."""

from async_tracker.records import Recovery
from async_tracker.recovery.adapter import QuarantinedPayload


def quarantine_error(plan: Recovery) -> str:
    """Say to whoever awaits the job why it will not come."""
    return f"job {plan.job_id} was quarantined: {plan.deaths} workers died running it ({plan.reason})"


def quarantined_fields(result: Recovery, kept: QuarantinedPayload) -> dict[str, str | bytes | int]:
    fields: dict[str, str | bytes | int] = {
        "library": result.library,
        "job_id": result.job_id,
        "queue": result.queue or "",
        "function": result.function or "",
        "instance_id": result.instance_id,
        "deaths": result.deaths,
        "reason": result.reason,
        "payload": kept.payload,
    }
    fields.update({f"extra:{name}": value for name, value in kept.extras.items()})
    return fields


def kept_payload(fields: dict[str, bytes]) -> QuarantinedPayload:
    """Read back what `Recoverer` kept of a quarantined job."""
    extras = {name.removeprefix("extra:"): value for name, value in fields.items() if name.startswith("extra:")}
    return QuarantinedPayload(payload=fields.get("payload", b""), extras=extras)
