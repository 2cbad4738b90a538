"""What a scrape tells, as Prometheus would read it."""

from collections.abc import Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The samples of one answer: ``scrape("jobs_started_total", queue="mail", function="send")`` gives the one that has these labels."""

    def __init__(self, body: bytes | str) -> None:
        self.text = body.decode() if isinstance(body, bytes) else body
        self.families = [(_full(family), family) for family in text_string_to_metric_families(self.text)]
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for _, family in self.families:
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, f"{key} stands there twice"
                self.samples[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        found = self.all(name, **labels)
        assert len(found) == 1, f"{len(found)} samples of {name} {labels}:\n{self.text}"
        return next(iter(found.values()))

    def all(self, name: str, **labels: str) -> Mapping[frozenset[tuple[str, str]], float]:
        """Give every sample of a metric that has these labels, by its labels."""
        return {
            of_it: value
            for (full, of_it), value in self.samples.items()
            if full == f"async_tracker_{name}" and labels.items() <= set(of_it)
        }

    def labels(self, name: str, label: str) -> set[str]:
        """Give the values of a label of a metric."""
        return {dict(labels).get(label, "") for labels in self.all(name)}

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Give all that must never go back."""
        return {key: value for key, value in self.samples.items() if key[0].endswith(("_total", "_count", "_sum", "_bucket"))}


def _full(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name
