"""The benchmarks stay alive: one round of each, on a real server, bounded. What they measure is no claim of a test."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import budget, connections, hardships, histograms, medians, overhead, proxy, queries, recovery, scale, web
from benchmarks.__main__ import BENCHMARKS, main, write_results
from benchmarks.environment import environment, header
from benchmarks.ground import DatabaseInUse, Ground, ground
from benchmarks.report import Bar, Chart, Report, Table, write_json
from benchmarks.size import ONE_ROUND
from tests.harness import forking

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(600)  # a round measures how fast the machine is, and must not fail because it is not


@pytest.fixture
def own_ground() -> Iterator[Ground]:
    """A ground on which workers are forked: a round here does little else than start them."""
    with ground() as found:
        yield replace(found, run=run_forked)


def run_forked(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = forking.start(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdout=out, stderr=err)
        try:
            code = process.wait(120)
        finally:
            process.kill()
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess(command, code, out.read().decode(), err.read().decode())


def assert_says_what_it_found(report: Report, tmp_path: Path, where: dict[str, str]) -> None:
    assert report.name in BENCHMARKS
    assert report.meaning
    assert all(sentence.endswith((".", ")")) for sentence in report.meaning)
    assert all(len(row) == len(table.columns) for table in report.tables for row in table.rows)
    assert all(bar.low <= bar.value <= bar.high for chart in report.charts for bar in chart.bars)
    assert report.title in report.to_markdown()
    write_json(tmp_path / "found.json", where, [report])
    assert report.name in json.loads((tmp_path / "found.json").read_text())["benchmarks"]


@pytest.mark.parametrize("module", [queries, recovery, scale, web], ids=lambda module: module.__name__)
@pytest.mark.lasts
def test_one_round_of_each_benchmark_says_what_it_found(module, own_ground: Ground, tmp_path: Path):
    report = module.run(own_ground, ONE_ROUND)
    assert_says_what_it_found(report, tmp_path, environment(own_ground, size=ONE_ROUND.name))


def measured_over(report: Report) -> list[str]:
    titles = [table.title for table in report.tables]
    return [title.split(", max_jobs")[0] for title in titles if title.startswith("Throughput over")]


@pytest.mark.lasts
def test_throughput_is_measured_by_name_over_tcp_and_over_a_unix_socket(own_ground: Ground, tmp_path: Path):
    report = overhead.run(own_ground, ONE_ROUND)
    assert_says_what_it_found(report, tmp_path, environment(own_ground, size=ONE_ROUND.name))
    assert measured_over(report) == ["Throughput over TCP, localhost", "Throughput over a unix socket"]


def test_what_histograms_cost_is_measured_with_the_very_statements_of_the_hook():
    lines, _ = histograms.noting()
    assert [line.partition(" ")[0] for line in lines] == ["tally", "tally"]
    assert histograms.table(histograms.measure(5)).rows[-1][0] == "together"


def test_the_hardships_of_a_live_worker_are_told(own_ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """For a second each; a host is lost for a minute, which only the full run has."""
    monkeypatch.setattr(hardships, "STOPPED_SECONDS", 1.0)
    monkeypatch.setattr(hardships, "BLOCKED_SECONDS", 1.0)
    found = asyncio.run(hardships.suffer(own_ground, tmp_path, hosts=False))
    assert [(row[0], row[2], row[3]) for row in hardships.table(found).rows] == [
        ("stopped (SIGSTOP)", "1", "0"),
        ("event loop blocked", "1", "0"),
    ]


def test_the_benchmark_of_the_namespace_is_read_as_the_others_are(own_ground: Ground, tmp_path: Path):
    report = proxy.run(own_ground, ONE_ROUND)
    assert_says_what_it_found(report, tmp_path, environment(own_ground, size=ONE_ROUND.name))


def test_connections_are_compared_near_and_far_with_many_jobs_and_with_one_at_a_time(own_ground: Ground, tmp_path: Path):
    report = connections.run(own_ground, ONE_ROUND)
    assert_says_what_it_found(report, tmp_path, environment(own_ground, size=ONE_ROUND.name))
    full, paced = report.tables
    assert {row[0].split(" (")[0] for row in full.rows} == {"1 ms", "near, pool of 4"}
    assert [row[0] for row in paced.rows] == [f"1 ms: {how}" for how in ("arq alone", "arq alone, again", "pooled (shared)", "dedicated")]
    pings_ms = [float(row[0].split("(")[1].split(" ms")[0]) for row in full.rows if row[0].startswith("1 ms")]
    assert all(ping_ms >= 1.0 for ping_ms in pings_ms)


@pytest.mark.parametrize("minutes", ["0", "-3", "soon", "inf", "nan"])
def test_no_number_of_minutes_is_refused_with_what_to_write(minutes: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["overhead", f"--minutes={minutes}"])
    assert "is no number of minutes: write one above 0, such as 15" in capsys.readouterr().err


def test_rounds_are_as_many_as_fit_into_the_time_and_one_at_least():
    def clock(*seconds: float) -> Callable[[], float]:
        return iter(seconds).__next__

    assert list(budget.rounds(5, seconds=0.0, now=clock(0.0, 100.0))) == [0]
    assert list(budget.rounds(5, seconds=100.0, now=clock(0.0, 40.0, 80.0))) == [0, 1]
    assert list(budget.rounds(2, seconds=100.0, now=clock(0.0, 1.0))) == [0, 1]


def write_name(report: Report, path: Path) -> None:
    path.write_text(report.name)


def test_the_page_of_results_holds_every_report_with_its_picture_and_says_where_it_was_measured(tmp_path: Path):
    chart = Chart(title="ratio", axis="ratio", bars=[Bar(label="tracked", value=0.98, low=0.97, high=0.99)])
    table = Table(title="Speed", columns=["way", "jobs/s"], rows=[["tracked", "990"]])
    reports = [Report(name=name, title=f"of {name}", meaning=["So it is."], tables=[table], charts=[chart]) for name in BENCHMARKS]
    write_results(tmp_path / "RESULTS.md", {"machine": "a small one"}, reports, draw=write_name)
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.count("Measured on machine: a small one.") == len(BENCHMARKS)
    for name in BENCHMARKS:
        assert f"## {name}: of {name}" in page
        assert f"![of {name}](plots/{name}.svg)" in page
        assert (tmp_path / "plots" / f"{name}.svg").read_text() == name


def test_one_benchmark_that_is_measured_anew_leaves_the_others_on_the_page(tmp_path: Path):
    page = tmp_path / "RESULTS.md"
    for names, date in ((list(BENCHMARKS), "Monday"), (["scale"], "Tuesday")):
        reports = [Report(name=name, title=f"of {name}", meaning=["So it is."], tables=[], charts=[]) for name in names]
        write_results(page, {"date": date, "machine": "a small one"}, reports, draw=write_name)
    measured = re.findall(r"## (\w+): of .*\n\nMeasured on (\w+); machine: a small one.\n", page.read_text())
    assert measured == [(name, "Tuesday" if name == "scale" else "Monday") for name in BENCHMARKS]


def test_the_environment_names_machine_server_and_versions(own_ground: Ground):
    printed = header(environment(own_ground, size="quick"))
    assert re.search(r"CPUs", printed)
    assert re.search(r"server +\w+ \d+\.\d+", printed)
    assert re.search(r"arq \d+\.\d+", printed)


def test_a_database_that_is_not_empty_is_refused_and_left_as_it_is(own_ground: Ground, capsys: pytest.CaptureFixture[str]):
    own_ground.sync.set("somebody", "else")
    assert main(["queries", "--quick", "--redis-url", own_ground.url]) == 2
    assert "holds 1 keys" in capsys.readouterr().err
    assert own_ground.sync.get("somebody") == b"else"
    with pytest.raises(DatabaseInUse), ground(own_ground.url):
        pass


def test_a_server_that_is_not_there_is_told_in_one_line_without_its_password(capsys: pytest.CaptureFixture[str]):
    assert main(["queries", "--quick", "--redis-url", "redis://me:secret@127.0.0.1:1/0"]) == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "secret" not in told


def test_an_interval_covers_the_median_as_often_as_it_says():
    fifteen = medians.estimate([float(number) for number in range(15)])
    assert (fifteen.low, fifteen.median, fifteen.high) == (3.0, 7.0, 11.0)
    assert 0.95 <= fifteen.coverage < 0.97
    assert medians.estimate([1.0]).coverage == 0.0
    with pytest.raises(ValueError, match="no measurement"):
        medians.estimate([])


def test_a_run_of_the_program_prints_its_environment_before_anything_else(capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path):
    monkeypatch.setattr("benchmarks.__main__.QUICK", ONE_ROUND)
    assert main(["queries", "--quick", "--json", str(tmp_path / "found.json")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("date ")
    assert printed.index("commit ") < printed.index("## queries")
    assert json.loads((tmp_path / "found.json").read_text())["environment"]["size"] == ONE_ROUND.name


@pytest.mark.parametrize("asked", [["--results"], ["--plot", "found.svg"]])
def test_that_plots_cannot_be_drawn_is_said_before_anything_is_measured(asked, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    assert main(["queries", *asked]) == 2
    found = capsys.readouterr()
    assert found.err == 'plots need matplotlib: pip install "async-tracker[bench]"\n'
    assert found.out == ""


def test_which_connection_is_faster_is_said_only_where_intervals_lie_apart_and_mean_something():
    ten = [1.0 + number / 1_000 for number in range(10)]
    alike, slower, few = medians.estimate(ten), medians.estimate([ratio - 0.1 for ratio in ten]), medians.estimate(ten[:2])
    assert "not for speed" in connections.which_is_faster({"near": alike}, {"near": alike})
    assert "dedicated at 1 ms" in connections.which_is_faster({"near": alike, "1 ms": slower}, {"near": alike, "1 ms": alike})
    assert "cannot be told from 2 round(s)" in connections.which_is_faster({"near": few}, {"near": slower})
