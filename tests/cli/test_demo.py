"""The demo keeps its promises: nothing is lost, nothing of anybody else's is touched, nothing is left behind."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import redis

from tests.harness.wait import wait_until_sync

NOBODY_LISTENS = "redis://127.0.0.1:1/0"
ELSEWHERE = {
    "TRACKER_REDIS_URL": NOBODY_LISTENS,
    "REDIS_URL": NOBODY_LISTENS,
    "TRACKER_ARQ_REDIS_URL": NOBODY_LISTENS,
    "TRACKER_NAMESPACE": "",
}


@pytest.fixture
def folder(tmp_path_factory):
    """A short path: a unix socket will stand in it."""
    return tmp_path_factory.mktemp("d")


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that were told of this folder, in an argument or by their environment."""
    mark = os.fsencode(folder)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:  # it has just ended, or is somebody else's
            continue
        if mark in told and state != "Z":
            found.append(f"{process.name} {told[:100]!r}")
    return found


def test_a_worker_is_killed_and_nothing_is_lost(make_cli, folder):
    answer = make_cli()("demo", "--quick", "--json", env={**ELSEWHERE, "TMPDIR": str(folder)})
    assert answer.code == 0, answer.err
    summary, act = answer.document["summary"], answer.document["kills"][0]
    assert summary["lost"] == 0
    assert summary["enqueued"] == summary["succeeded"] + summary["failed"]
    assert min(summary["failed"], summary["retried"], summary["recovered"]) > 0
    assert summary["recovered"] >= len(act["fates"]) > 0
    for fate in act["fates"]:
        assert 0 < fate["recovered_after"] < fate["alone"]
        assert fate["running_on"] != act["victim"]
        assert fate["attempt"] == 2 or (fate["job_id"].startswith("flaky") and fate["attempt"] == 3)
        assert fate["alone"] > 200, "a claim of arq stands for five minutes"
    for said in ("blocked", "worker.py", "KILLED", "NOTICED", "RECOVERED", "RUNNING AGAIN"):
        assert said in answer.err
    assert os.listdir(folder) == []
    assert processes_of(folder) == []


@pytest.mark.lasts
def test_with_the_workers_of_both_libraries_one_of_each_is_killed_and_nothing_is_lost(make_cli, folder):
    answer = make_cli()("demo", "--quick", "--json", "--workers", "both", env={**ELSEWHERE, "TMPDIR": str(folder)})
    assert answer.code == 0, answer.err
    assert answer.document["summary"]["lost"] == 0
    assert [act["library"] for act in answer.document["kills"]] == ["arq", "dramatiq"]
    for act in answer.document["kills"]:
        assert act["fates"]
        assert all(0 < fate["recovered_after"] < fate["alone"] for fate in act["fates"])
    assert os.listdir(folder) == []
    assert processes_of(folder) == []


@pytest.mark.lasts
def test_with_dramatiqs_workers_a_given_server_is_left_as_it_was(make_cli, folder, redis_url):
    answer = make_cli()(
        "demo", "--quick", "--json", "--workers", "dramatiq", "--redis-url", redis_url, env={**ELSEWHERE, "TMPDIR": str(folder)}
    )
    assert answer.code == 0, answer.err
    assert [act["library"] for act in answer.document["kills"]] == ["dramatiq"]
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys() == []
    assert processes_of(folder) == []


def begun(process: subprocess.Popen[str], folder: Path) -> str:
    """Read the demo's lines until jobs come in, and return them."""
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if "jobs come in" in line:
            return lines
    raise AssertionError(f"the demo ended with {process.wait()}: {lines}{process.stderr and process.stderr.read()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_demo_leaves_no_process_and_no_folder(make_cli, folder, number: signal.Signals):
    demo = make_cli().start("demo", "--quick", env={**ELSEWHERE, "TMPDIR": str(folder)})
    lines = begun(demo, folder)
    assert len(set(re.findall(r"pid (\d+)", lines))) == 3
    assert os.listdir(folder) != []
    assert len(processes_of(folder)) >= 5, "the demo, its server and three workers"
    demo.send_signal(number)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert err == "async-tracker: interrupted\n"
    assert os.listdir(folder) == []
    assert processes_of(folder) == []


def test_a_demo_that_is_killed_takes_its_processes_with_it(make_cli, folder):
    demo = make_cli().start("demo", "--quick", env={"TMPDIR": str(folder)})
    begun(demo, folder)
    demo.kill()
    wait_until_sync(lambda: not processes_of(folder), timeout=30.0, description="no process of the demo is left")
    wait_until_sync(lambda: not os.listdir(folder), timeout=30.0, description="no folder of the demo is left")


def test_on_a_given_server_it_deletes_what_it_wrote_and_no_more(make_cli, redis_url, folder, namespace):
    with redis.Redis.from_url(redis_url) as client:
        client.set("somebody", "else's")
        client.zadd("arq:queue", {"somebody's job": 1})
        demo = make_cli().start("demo", "--quick", "--redis-url", redis_url, "--namespace", namespace, env={"TMPDIR": str(folder)})
        begun(demo, folder)
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
        assert demo.returncode == 130
        assert sorted(client.keys()) == [b"arq:queue", b"somebody"]
    assert os.listdir(folder) == []


def test_a_namespace_or_a_queue_that_is_not_empty_is_refused_untouched(make_cli, redis_url, namespace):
    with redis.Redis.from_url(redis_url) as client:
        for key in (f"{namespace}:something", f"arq:queue:{namespace}"):
            client.set(key, "mine")
            answer = make_cli()("demo", "--quick", "--redis-url", redis_url, "--namespace", namespace)
            assert answer.code == 2
            assert len(answer.err.splitlines()) == 1
            assert client.keys() == [key.encode()]
            client.delete(key)


def test_a_demo_that_is_kept_can_be_looked_at_from_another_terminal(make_cli, folder):
    demo = make_cli().start("demo", "--quick", "--keep", env={"TMPDIR": str(folder)})
    assert demo.stdout is not None
    lines = ""
    for line in demo.stdout:
        lines += line
        if "async-tracker doctor" in line:
            break
    assert "Nothing was lost." in lines
    arguments = re.search(r"async-tracker ps --redis-url '(.*)' --namespace (\S+)", lines)
    assert arguments is not None, lines
    cli = make_cli(url=arguments[1], namespace=arguments[2])
    assert [item["state"] for item in cli("ps", "--json").document["instances"]] == ["alive", "alive"]
    assert cli("doctor").code == 0
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert processes_of(folder) == []
