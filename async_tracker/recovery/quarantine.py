"""The quarantine: what is kept of a job, the error that its caller gets, and how a person retries or drops it."""

from collections.abc import Callable

from async_tracker.errors import TrackerError
from async_tracker.events.encoding import encode_event
from async_tracker.records import Recovery
from async_tracker.recovery.adapter import Adapter, QuarantinedPayload
from async_tracker.store.commands import Store
from async_tracker.store.quarantine import field_text
from async_tracker.store.reading import Reading


def quarantine_error(plan: Recovery) -> str:
    """Say why the job is not run again, to the caller who awaits its result."""
    return f"job {plan.job_id} was quarantined: {plan.deaths} workers died running it ({plan.reason})"


def quarantined_fields(result: Recovery, kept: QuarantinedPayload) -> dict[str, str | bytes | int]:
    """Give the fields of ``quarantined:{job}``, the payload included."""
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
    """Read back from the fields of ``quarantined:{job}`` what the adapter kept of the job."""
    extras = {name.removeprefix("extra:"): value for name, value in fields.items() if name.startswith("extra:")}
    return QuarantinedPayload(payload=fields.get("payload", b""), extras=extras)


class Quarantine:
    """Retries and drops quarantined jobs. Each method raises StorageError when Redis refuses or is away.

    ``adapter_of`` gives the adapter of a worker library by its name, None for one that is not known here. ``on_event`` is called with
    each event of which a method is the cause, as JSON.
    """

    def __init__(
        self, *, store: Store, reading: Reading, adapter_of: Callable[[str], Adapter | None], on_event: Callable[[str], None]
    ) -> None:
        self._store = store
        self._reading = reading
        self._adapter_of = adapter_of
        self._on_event = on_event

    async def retry(self, job_id: str) -> bool:
        """Let a job run again, with all its tries. Returns False when its id was enqueued anew meanwhile: then it stays.

        A call that dies after the job is queued leaves it on the list; the next call takes it off, and does not queue it again.
        Raises TrackerError when no such job is quarantined, and when its library is not known here.
        """
        ref, fields = await self._find(job_id)
        library = field_text(fields, "library") or ""
        adapter = self._adapter_of(library)
        if adapter is None:
            raise TrackerError(
                f"job {job_id!r} is of the library {library!r}, which this tracker does not know: retry it where its workers run"
            )
        if not await adapter.retry(field_text(fields, "job_id") or ref, field_text(fields, "queue"), kept_payload(fields)):
            return False
        await self._take_off(ref, fields, how="retried")  # False: another call was quicker, and the job is queued all the same
        return True

    async def drop(self, job_id: str) -> bool:
        """Forget a job, its payload included. Returns False when another call was quicker; raises TrackerError as `retry` does."""
        ref, fields = await self._find(job_id)
        return await self._take_off(ref, fields, how="dropped")

    async def _find(self, job_id: str) -> tuple[str, dict[str, bytes]]:
        """Find a quarantined job by its id, or by its ref where two libraries have quarantined the same id."""
        found = await self._reading.quarantined([job_id])  # there may be very many, each with its payload
        if job_id in found:
            return job_id, found[job_id]
        found = await self._reading.quarantined()
        for ref, fields in found.items():
            if field_text(fields, "job_id") == job_id:
                return ref, fields
        raise TrackerError(f"job {job_id!r} is not quarantined")

    async def _take_off(self, ref: str, fields: dict[str, bytes], *, how: str) -> bool:
        event = encode_event("unquarantined", job_id=field_text(fields, "job_id") or ref, library=field_text(fields, "library"), how=how)
        is_done = await self._store.unquarantine(ref, event)
        if is_done:
            self._on_event(event)
        return is_done
