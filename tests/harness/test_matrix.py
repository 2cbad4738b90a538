"""The matrix's own words: what it says of a run must be what the run said."""

from pathlib import Path

import pytest

from tests.harness import matrix
from tests.harness.matrix import Absent, Combination, ServerSource, table


def nowhere() -> Path:
    raise Absent("no wheel for this machine")


def test_the_table_is_aligned_and_has_a_row_for_each_combination():
    rows = [
        Combination(server="redis-6.2", version="6.2.14", redis_py="5.3.1", outcome="3 passed in 1.0s", passed=True),
        Combination(server="valkey-on-path", version="-", redis_py="5.3.1", outcome="absent", passed=True),
    ]
    assert table(rows).splitlines() == [
        "server          version  redis-py  outcome",
        "redis-6.2       6.2.14   5.3.1     3 passed in 1.0s",
        "valkey-on-path  -        5.3.1     absent",
    ]


@pytest.mark.parametrize(("optional", "arguments", "exit_code"), [(False, [], 1), (True, [], 0), (False, ["--allow-absent"], 0)])
def test_a_server_that_cannot_be_had_fails_unless_it_may_be_absent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], optional: bool, arguments: list[str], exit_code: int
):
    monkeypatch.setattr(matrix, "SOURCES", (ServerSource(name="redis-5", find=nowhere, optional=optional),))
    assert matrix.main(["--server", "redis-5", *arguments]) == exit_code
    assert "absent: no wheel for this machine" in capsys.readouterr().out


def test_a_test_that_does_not_exist_fails_the_matrix():
    assert matrix.main(["--server", "valkey-9.1", "tests/harness/test_servers.py::test_nothing"]) == 1
    with pytest.raises(SystemExit, match="none of these exists"):
        matrix.main(["--server", "valkey-9.1", "tests/nowhere"])
