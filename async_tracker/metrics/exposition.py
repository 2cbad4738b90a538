"""The metrics in Prometheus' text format: pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from async_tracker.metrics.families import FAMILIES, Distribution, Family, Labels, Values

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""OpenMetrics has one type for each name, and there `orphans` and `orphans_total` would be one name."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a scrape is answered: the values of each metric that is known, and the bounds of durations in seconds."""

    values: Mapping[str, Values]
    bounds: Sequence[float] = ()


def written(told: Told) -> bytes:
    """Write an answer. Thousands of samples are written each time, so it is done here and not sample by sample elsewhere."""
    limits = limits_of(told.bounds)
    return "".join(
        line for family in FAMILIES if family.name in told.values for line in _lines(family, told.values[family.name], limits)
    ).encode()


def limits_of(bounds: Sequence[float]) -> list[str]:
    """Give the values of ``le``.

    >>> limits_of([0.00497975, 3438.2])
    ['0.00498', '3438.0', '+Inf']
    """
    return [str(float(f"{bound:.4g}")) for bound in bounds] + ["+Inf"]


def _lines(family: Family, values: Values, limits: Sequence[str]) -> Iterator[str]:
    name = family.name
    yield f"# HELP {name} {family.says}\n# TYPE {name} {family.kind}\n"
    for labels, value in values.items():
        if isinstance(value, Distribution):
            inner = _inner(family, labels)
            for limit, count in zip(limits, value.cumulated, strict=True):
                yield f'{name}_bucket{{{inner},le="{limit}"}} {count}\n'
            yield f"{name}_sum{{{inner}}} {value.total!r}\n{name}_count{{{inner}}} {value.cumulated[-1]}\n"
        elif labels:
            yield f"{name}{{{_inner(family, labels)}}} {value!r}\n"
        else:
            yield f"{name} {value!r}\n"


def _inner(family: Family, labels: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, labels, strict=True))


def _escaped(value: str) -> str:
    r"""Write the value of a label.

    >>> _escaped('send "mail"\\\n')
    'send \\"mail\\"\\\\\\n'
    """
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
