"""The namespace's benchmark, which makes its own server and measures itself, in the frame of the others."""

from typing import Any

from benchmarks import namespace
from benchmarks.ground import Ground
from benchmarks.report import Bar, Chart, Report, Table
from benchmarks.size import FULL, Size

_WAYS = ("raw", "namespace", "by hand", "kombu")


def run(ground: Ground, size: Size) -> Report:
    """Compare the Namespace with the client underneath. It uses a unix socket of its own: ``ground`` may be far away."""
    found = namespace.run(quick=size is not FULL)
    groups = {"over a unix socket": found["over_a_unix_socket"], "CPU without a connection": found["mocked"]}
    rows = [(f"{work}, {where}", work, ways) for where, group in groups.items() for work, ways in group.items()]
    bars = [_bar(label, ways["namespace"]) for label, _, ways in rows]
    return Report(
        name="namespace",
        title="what the namespace costs against the client underneath",
        meaning=[_meaning(groups["over a unix socket"], found["goals"])],
        tables=[
            Table(
                title=f"Time by that of the raw client: median (95 % interval), {found['rounds']} interleaved rounds",
                columns=["work", "goal", *_WAYS],
                rows=[[label, _goal(found["goals"], work), *(_cell(ways.get(way), way) for way in _WAYS)] for label, work, ways in rows],
            )
        ],
        charts=[Chart(title="The Namespace against the raw client", axis="time, as a ratio", bars=bars, goal=1.0)],
        data={"measured": found},
    )


def _meaning(measured: dict[str, Any], goals: dict[str, float]) -> str:
    parts = [
        f"{work}: {measured[work]['namespace']['ratio']:.3f} (goal {goal:.2f}: {_verdict(measured[work]['namespace'], goal)})"
        for work, goal in goals.items()
        if "namespace" in measured[work]
    ]
    return "A command through the Namespace takes this many times what it takes on the raw client; " + "; ".join(parts) + "."


def _verdict(measured: dict[str, float], goal: float) -> str:
    """Say whether a goal was reached, by the median, and whether the interval leaves it open.

    >>> _verdict({"ratio": 1.01, "low": 1.0, "high": 1.02}, 1.03), _verdict({"ratio": 1.02, "low": 1.0, "high": 1.05}, 1.03)
    ('reached', 'reached, though the interval, 1.000 to 1.050, leaves it open')
    """
    met = "reached" if measured["ratio"] <= goal else "missed"
    is_open = measured["low"] <= goal < measured["high"]
    return f"{met}, though the interval, {measured['low']:.3f} to {measured['high']:.3f}, leaves it open" if is_open else met


def _goal(goals: dict[str, float], work: str) -> str:
    return f"{goals[work]:.2f}" if work in goals else ""


def _cell(measured: dict[str, float] | None, way: str) -> str:
    if measured is None:
        return ""
    if way == "raw":
        return f"{measured['us_per_call']:.2f} us"
    return f"{measured['ratio']:.3f} ({measured['low']:.3f} to {measured['high']:.3f})"


def _bar(label: str, measured: dict[str, float]) -> Bar:
    ratio = measured["ratio"]  # of few rounds the interval may lie beside it
    return Bar(label=label, value=ratio, low=min(measured["low"], ratio), high=max(measured["high"], ratio))
