"""What `doctor` found: one thing, how good it is, and how to mend it."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and less well than it could."""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    status: Status
    says: str
    remedy: str | None = None
