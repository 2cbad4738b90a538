"""The exit codes that scripts rely on, and that what goes wrong is one line."""

import signal
import subprocess
import sys

import pytest
import redis

from tests.harness.wait import wait_until_sync

NOBODY_LISTENS = "redis://127.0.0.1:1/0"
ASKING = [
    ["ps"],
    ["jobs"],
    ["orphans"],
    ["stats"],
    ["events"],
    ["recover", "--yes"],
    ["quarantine", "list"],
    ["check"],
    ["doctor"],
    ["demo", "--quick"],
]


@pytest.mark.parametrize("command", ASKING, ids=lambda command: command[0])
def test_a_redis_that_is_not_there_is_one_line_and_exit_code_3(make_cli, command: list[str]):
    answer = make_cli()(*command, "--redis-url", NOBODY_LISTENS)
    assert answer.code == 3
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert "127.0.0.1:1" in answer.err


def test_a_variable_says_which_redis_and_an_option_wins(make_cli, redis_url, namespace):
    cli = make_cli(namespace=namespace)
    assert cli("ps", env={"TRACKER_REDIS_URL": redis_url}).code == 0
    assert cli("ps", env={"REDIS_URL": redis_url}).code == 0
    assert cli("ps", env={"TRACKER_REDIS_URL": redis_url, "REDIS_URL": NOBODY_LISTENS}).code == 0
    assert cli("ps", env={"TRACKER_REDIS_URL": NOBODY_LISTENS, "REDIS_URL": redis_url}).code == 3
    assert cli("ps", "--redis-url", redis_url, env={"TRACKER_REDIS_URL": NOBODY_LISTENS}).code == 0


def test_options_may_stand_before_and_after_the_command_and_the_nearer_wins(make_cli, redis_url):
    answer = make_cli()("--namespace", "far", "--json", "ps", "--namespace", "near", "--redis-url", redis_url)
    assert answer.code == 0
    assert answer.document["namespace"] == "near"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--namespace", "", "ps"], "namespace"),
        (["ps", "--redis-url", "nonsense://x"], "redis://host:6379/0"),
        (["events", "--since", "yesterday"], "10m"),
        (["events", "--type", "recoverd"], "recovered"),
    ],
)
def test_a_value_that_cannot_work_is_exit_code_2_and_says_what_to_write(make_cli, arguments: list[str], says: str):
    answer = make_cli()(*arguments)
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert says in answer.err


def test_a_user_that_redis_refuses_is_a_bad_answer_in_one_line(make_cli, make_server):
    server = make_server(tcp=True)
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "nobody", "on", ">secret", "~*", "-@all", "+hello", "+ping")
    answer = make_cli()("ps", "--redis-url", f"redis://nobody:secret@127.0.0.1:{server.port}/0")
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert "secret" not in answer.err


def test_an_interrupt_is_exit_code_130_and_no_traceback(cli, redis_url):
    following = cli.start("events", "--follow")
    with redis.Redis.from_url(redis_url) as client:
        wait_until_sync(lambda: "xread" in [found["cmd"] for found in client.client_list()], description="the command listens")
    following.send_signal(signal.SIGINT)
    out, err = following.communicate(timeout=30)
    assert following.returncode == 130
    assert (out, err) == ("", "async-tracker: interrupted\n")


def test_a_reader_who_has_seen_enough_ends_the_command_quietly(cli):
    first_line = f"{sys.executable} -m async_tracker.cli ps --redis-url '{cli._url}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", first_line], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"
