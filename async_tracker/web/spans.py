"""The windows of time that the page offers, by the names that stand in its addresses. Pure."""

from collections.abc import Mapping

WINDOWS: Mapping[str, float] = {"15m": 900.0, "1h": 3_600.0, "24h": 86_400.0, "7d": 604_800.0}
"""How long each is, in seconds."""
STEPS: Mapping[str, float] = {"15m": 60.0, "1h": 60.0, "24h": 1_800.0, "7d": 10_800.0}
"""The step of its charts, in seconds."""
TRENDS: Mapping[str, float] = {"15m": 60.0, "1h": 120.0, "24h": 3_600.0, "7d": 21_600.0}
"""The step of the small line that each function has in the table, in seconds."""
