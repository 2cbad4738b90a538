"""A real Prometheus: Debian's, started for one test, with its own folder and port."""

import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness.forking import ROOT
from tests.harness.wait import wait_until_sync
from tests.harness.workers import WorkerProcess, Workers

ALERTS = ROOT / "deploy" / "alerts.yaml"
ALERT_TESTS = ROOT / "deploy" / "alerts-tests.yaml"
DASHBOARD = ROOT / "deploy" / "grafana.json"

_IN_SECONDS = {"> 300": "> 1", "[10m]": "[4s]", "[15m]": "[3s]", "offset 1h": "offset 1m"}
"""What a test changes in the rules, so that it sees in seconds what operators see in minutes."""


def needed(program: str) -> str:
    """Give the path of a program of Debian's package; skips the test where it is missing, and says how to get it."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}: apt-get install --no-install-recommends prometheus")
    return found


def names_of(expression: str) -> set[str]:
    """Give the metrics that an expression asks for."""
    return set(re.findall(r"\basync_tracker_\w+", expression))


def panels() -> list[tuple[str, str]]:
    """Give the expressions of the dashboard, each with the title of its panel, as Grafana sends them."""
    found = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            found.append((panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$job", ".+")))
    return found


class Prometheus:
    """Scrapes some addresses about once a second, and evaluates our rules more often, at once and in seconds."""

    def __init__(self, workers: Workers, folder: Path, urls: Sequence[str], *, port: int) -> None:
        folder.mkdir()
        rules = re.sub(r"for: \w+", "for: 0s", ALERTS.read_text())
        for minutes, seconds in _IN_SECONDS.items():
            assert minutes in rules
            rules = rules.replace(minutes, seconds)
        (folder / "alerts.yaml").write_text(rules)
        every = {"scrape_interval": "800ms", "scrape_timeout": "800ms", "evaluation_interval": "400ms"}
        targets = [urllib.parse.urlsplit(url).netloc for url in urls]
        scrape = {"job_name": "t", "honor_labels": False, "static_configs": [{"targets": targets}]}
        (folder / "prometheus.yml").write_text(json.dumps({"global": every, "rule_files": ["alerts.yaml"], "scrape_configs": [scrape]}))
        self.address = f"127.0.0.1:{port}"
        options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        options += [f"--web.listen-address={self.address}", "--log.level=warn", "--rules.alert.resend-delay=1s"]
        self.process: WorkerProcess = workers.start_program([needed("prometheus"), *options])
        wait_until_sync(self._is_ready, timeout=60.0, description="Prometheus is ready")

    def _is_ready(self) -> bool:
        assert self.process.exit_code is None, self.process.output()
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Any]:
        """Evaluate an expression; one that cannot be parsed is an error."""
        found: list[Any] = self._get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Evaluate an expression that has one value, or none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        """Give the names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"}

    def targets(self) -> list[Any]:
        """Tell what it says of each address."""
        found: list[Any] = self._get("targets")["activeTargets"]
        return found
