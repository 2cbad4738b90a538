"""docs/metrics.md against the code: every metric with its type, unit and labels, and what stands in the snippets."""

import re
import runpy
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from async_tracker.history.histogram import upper_bound_ms
from async_tracker.metrics.families import FAMILIES
from async_tracker.store.counters import BOUNDS
from tests.metrics.prometheus import ALERTS, names_of
from tests.story.snippets import ROOT, snippets, table

PAGE = "docs/metrics.md"
ROWS = table(PAGE, under="Every metric")


def test_every_metric_is_on_the_page_in_its_order_with_its_type_unit_labels_and_meaning():
    told = [(row["metric"], row["type"], row["unit"], tuple(re.findall(r"\w+", row["labels"])), row["what it tells"]) for row in ROWS]
    assert told == [(family.name, family.kind, family.unit, family.labels, family.says) for family in FAMILIES]


def test_every_alert_is_on_the_page_and_beside_the_metrics_that_it_asks_for():
    blocks = {block.split()[0]: block.partition("labels: {")[0] for block in ALERTS.read_text().split("- alert: ")[1:]}
    assert sorted(row["alert"] for row in table(PAGE, under="Alerts and a dashboard")) == sorted(blocks)
    told = {(row["metric"], alert) for row in ROWS for alert in re.findall(r"\w+", row["alerts"])}
    assert told == {(name, alert) for alert, block in blocks.items() for name in names_of(block)}


def test_the_bounds_on_the_page_are_those_of_the_histograms():
    told = re.search(r"counts are exact: ([\d., and\s]+) s\.", (ROOT / PAGE).read_text())
    assert told is not None
    assert [float(number) for number in re.findall(r"[\d.]+", told[1])] == [
        pytest.approx(upper_bound_ms(bound) / 1000, rel=1e-3) for bound in BOUNDS
    ]


def test_the_registry_of_your_own_is_given_the_collector_and_asks_nothing(tmp_path: Path):
    block = next(block for block in snippets(PAGE) if block.name == "registry.py")
    (tmp_path / "registry.py").write_text(block.text)
    before = set(REGISTRY._collector_to_names)
    try:
        runpy.run_path(str(tmp_path / "registry.py"))
        (added,) = set(REGISTRY._collector_to_names) - before
        assert "async_tracker_redis_up" in REGISTRY._collector_to_names[added]
    finally:
        for collector in set(REGISTRY._collector_to_names) - before:
            REGISTRY.unregister(collector)
