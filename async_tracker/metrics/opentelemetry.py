"""The metrics of a whole namespace through the Meter API of OpenTelemetry, for whatever provider the process has.

from async_tracker.metrics.opentelemetry import FleetMeter

meter = FleetMeter(tracker)
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from async_tracker import __version__
from async_tracker.metrics.families import FAMILIES, NAMES_MOST, PREFIX, Distribution, Family
from async_tracker.metrics.source import Source
from async_tracker.tracker import Tracker

__all__ = ["FleetMeter"]

_UNITS = {"seconds": "s", "": "1"}


class FleetMeter(Source):
    """The metrics of a tracker's namespace as observable instruments, read when the provider collects, and not before.

    They are those of `async_tracker.metrics.prometheus`, by the same names with a dot after ``async_tracker``, and the same labels as
    attributes; except the histograms, which the workers record themselves with ``telemetry=True``. One process of a fleet is to have
    one: each tells of the whole namespace.

    ``provider``: the meter provider; without it that of the process. ``timeout``: how many seconds a collection may wait for Redis; then
    ``async_tracker.redis_up`` is 0, and the rest is left out. ``fresh_for``: for how many seconds what was read is given to all that ask.
    ``names_most``: how many functions, and how many queues, have an attribute of their own; all others share ``other``. Raises
    ConfigError for numbers that cannot work.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        provider: MeterProvider | None = None,
        timeout: float = 3.0,
        fresh_for: float = 1.0,
        names_most: int = NAMES_MOST,
    ) -> None:
        super().__init__(tracker, timeout=timeout, fresh_for=fresh_for, names_most=names_most)
        self._is_closed = False
        meter = metrics.get_meter("async_tracker", __version__, provider)
        makers: dict[str, Callable[..., object]] = {"gauge": meter.create_observable_gauge, "counter": meter.create_observable_counter}
        for family in FAMILIES:
            if family.kind in makers:
                callbacks = [partial(self._observe, family)]
                makers[family.kind](_name(family), callbacks=callbacks, unit=_unit(family), description=family.says)

    def close(self) -> None:
        """Tell nothing more, and end the thread that reads, if there is one: the instruments stay with their provider."""
        self._is_closed = True
        super().close()

    def _observe(self, family: Family, _: CallbackOptions) -> Iterable[Observation]:
        if self._is_closed:
            return []
        told = self.ask().values.get(family.name, {})
        names = family.labels
        return [Observation(value, _attributes(names, labels)) for labels, value in told.items() if not isinstance(value, Distribution)]


def _name(family: Family) -> str:
    return family.name.replace(PREFIX, "async_tracker.", 1)


def _unit(family: Family) -> str:
    """Give the unit as UCUM writes it: what is counted stands in braces.

    >>> [_unit(family) for family in FAMILIES if family.name.endswith(("redis_up", "lag_seconds", "instances"))]
    ['{instance}', 's', '1']
    """
    return _UNITS.get(family.unit) or f"{{{family.unit.removesuffix('s')}}}"


def _attributes(names: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    return dict(zip(names, labels, strict=True))
