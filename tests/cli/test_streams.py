"""Closed streams, a full device, a reader that is gone: one line, the documented exit code, and the probe answers by it."""

import os
import subprocess
import sys

import pytest

from tests.cli.conftest import environment

AT = f"{sys.executable} -m async_tracker.cli"


def run(command, *, redis_url, namespace):
    done = subprocess.run(
        ["bash", "-c", command.replace("AT ", f"{AT} ")],
        env=environment({"REDIS_URL": redis_url, "TRACKER_NAMESPACE": namespace}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    return done


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("AT ps >&-", 1, "stdout is closed"),
        ("AT ps --json >&-", 1, "stdout is closed"),
        ("AT ps >/dev/full", 1, "No space left"),
        ("AT stats --json >/dev/full", 1, "No space left"),
        ("AT --help >/dev/full", 1, "No space left"),
        ("AT ps <&-", 0, ""),
        ("AT recover <&-", 2, "--yes"),
        ("AT ps 2>&-", 0, ""),
        ("AT ps --redis-url nonsense 2>&-", 2, ""),
        ("AT ps --redis-url nonsense 2>/dev/full", 2, ""),
        ("AT nonsense 2>/dev/full", 2, ""),
        ("AT ps <&- >&- 2>&-", 1, ""),
        ("AT check >&-", 1, ""),
        ("AT check >/dev/full", 1, ""),
        ("AT check <&- >&- 2>&-", 1, ""),
        ("AT check --redis-url redis://127.0.0.1:1 >&- 2>&-", 3, ""),
    ],
)
def test_a_stream_that_cannot_be_used(redis_url, namespace, command, code, says):
    done = run(command, redis_url=redis_url, namespace=namespace)
    assert done.returncode == code
    assert says in done.stderr


def test_a_reader_that_is_gone_changes_nothing_of_what_the_probe_answers(redis_url, namespace):
    done = run("AT check | true; exit ${PIPESTATUS[0]}", redis_url=redis_url, namespace=namespace)
    assert done.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["events", "--since", "99999999999999999999d"],
        ["events", "--since", "999999999999d"],
        ["events", "--since", f"{'9' * 400}s"],
        ["events", "--since", "0001-01-01T00:00"],
        ["events", "--since", f"{'9' * 5000}-0"],
        ["events", "--since", "nan"],
        ["events", "--limit", "0"],
        ["check", "--timeout", "nan"],
        ["check", "--timeout", "inf"],
        ["check", "--timeout", "1e400"],
        ["check", "--blocked-limit", "nan"],
        ["check", "--blocked-limit", "-1"],
        ["ps", "--namespace", os.fsdecode(b"a\xffb")],
        ["ps", "--redis-url", "redis://:secret/x@localhost"],
        ["quarantine", "show"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40].encode("ascii", "replace").decode(),
)
async def test_a_value_that_is_none_is_one_line_and_exit_code_2(cli, arguments):
    answer = await cli.within(*arguments)
    if arguments[-1].startswith("0001"):
        assert answer.code in (0, 2)  # whether the year 1 is in the calendar is a matter of this host's zone
        return
    assert (answer.code, answer.out) == (2, "")
    assert len(answer.err.splitlines()) == 1
    assert "secret" not in answer.err
