"""The fields of a quarantined job as Redis keeps them: pure."""

from async_tracker.connections.replies import text


def field_text(fields: dict[str, bytes], name: str) -> str | None:
    """Read one text field of a quarantined job; None when it is empty or missing."""
    return text(fields[name]) or None if name in fields else None
