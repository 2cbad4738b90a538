"""What stands in deploy/, against the metrics that there are: by promtool, and without it."""

import json
import re
import subprocess

from async_tracker.metrics.families import FAMILIES
from tests.metrics.prometheus import ALERT_TESTS, ALERTS, DASHBOARD, names_of, needed, panels

KNOWN = {family.name + suffix for family in FAMILIES for suffix in (("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",))}
NAMES = re.findall(r"- alert: (\w+)", ALERTS.read_text())


def test_the_eight_alerts_are_there_and_each_has_a_test_in_which_it_fires_and_one_in_which_it_does_not():
    assert sorted(NAMES) == sorted(
        "NoInstanceAlive QueueWithoutWorkers OldestWaitTooLong OrphansNotRecovered JobQuarantined InstanceStalled FailuresRising "
        "TrackerRedisDown".split()
    )
    tests = ALERT_TESTS.read_text()
    for name in NAMES:
        assert re.search(rf"alertname: {name}\n\s+exp_alerts:\n\s+- exp_labels", tests), f"{name} never fires"
        assert f"alertname: {name} }}" in tests, f"{name} always fires"


def test_every_metric_that_an_alert_or_a_panel_asks_for_exists_and_most_that_exist_are_shown():
    asked = names_of(ALERTS.read_text())
    shown = set().union(*(names_of(expression) for _, expression in panels()))
    assert (asked | shown) - KNOWN == set()
    assert {family.name for family in FAMILIES} - {re.sub("_bucket$", "", name) for name in shown} == set()


def test_the_dashboard_can_be_imported_anywhere():
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(set(cells)) == len(cells), "two panels lie upon each other"
    assert max(x for x, _ in cells) < 24


def test_promtool_finds_nothing_wrong_with_the_rules_and_each_alert_fires_and_ends_when_it_should():
    promtool = needed("promtool")
    for command in (["check", "rules", "--lint-fatal", str(ALERTS)], ["test", "rules", str(ALERT_TESTS)]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
