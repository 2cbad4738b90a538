"""A connection over which commands are sent and not waited for."""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from async_tracker.connections.counterparts import lone_connection
from async_tracker.connections.one_way import OneWay, packed
from async_tracker.embedded import EmbeddedServer
from async_tracker.errors import StorageUnavailable
from tests.harness.wait import wait_until_sync

Open = Callable[[], OneWay]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def open_line(client: redis.Redis) -> Open:
    return lambda: OneWay(lone_connection(client, timeout=30.0), [("DEL", "marks")])


def hset(field: str, value: str) -> bytes:
    return b"*4\r\n" + packed(b"HSET", b"marks", field.encode(), value.encode())


def test_what_many_threads_send_arrives_whole(client: redis.Redis, open_line: Open, namespace: str):
    line = open_line()

    def mark(thread: int) -> None:
        for number in range(20):  # more at once do not fit into a socket whose other end does not get to read
            line.send(hset(f"{thread}", f"{number}"))

    threads = [threading.Thread(target=mark, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line.close(hset("last", "word"))
    assert client.hgetall("marks") == {**{b"%d" % number: b"19" for number in range(8)}, b"last": b"word"}
    client.delete("marks")


def test_answers_are_read_when_they_are_asked_for(client: redis.Redis, open_line: Open):
    line, ones, is_refused = open_line(), 0, False
    for command in (hset("0", "a"), hset("0", "b"), b"*2\r\n" + packed(b"HSET", b"marks")):
        line.send(command)

    def have_come() -> bool:
        nonlocal ones, is_refused
        answers = line.answers()
        ones, is_refused = ones + answers.ones, is_refused or answers.is_refused
        return is_refused

    wait_until_sync(have_come, description="the refusal has come, which is the last answer")
    assert ones == 1
    line.close()
    client.delete("marks")


def test_a_line_that_is_closed_sends_nothing_not_even_to_what_is_opened_after_it(open_line: Open, tmp_path: Path):
    line = open_line()
    line.close()
    files = [(tmp_path / f"{number}").open("wb") for number in range(10)]  # one of them has the number that the socket had
    with pytest.raises(StorageUnavailable):
        line.send(hset("0", "late"))
    for file in files:
        file.close()
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0] * 10


def test_that_the_server_has_gone_is_told(make_server: Callable[..., EmbeddedServer]):
    server = make_server()
    with redis.Redis.from_url(server.url) as client:
        line = OneWay(lone_connection(client, timeout=30.0), [])
    server.stop()

    def is_told() -> bool:
        try:
            line.send(hset("0", "nobody hears it"))
        except StorageUnavailable:
            return True
        return False

    wait_until_sync(is_told, description="a send is refused")
    line.close()


def test_lines_leave_no_descriptor_behind(open_line: Open):
    open_line().close()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        open_line().close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
