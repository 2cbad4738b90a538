"""The proxy's eye for messages: it must cut a stream where the protocol does, however it arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.resp import FrameSplitter, error_reply, is_push, parse_command

MESSAGES = {
    "simple string": b"+OK\r\n",
    "error": b"-ERR no\r\n",
    "integer": b":42\r\n",
    "bulk string": b"$5\r\nab\r\nc\r\n",
    "empty bulk string": b"$0\r\n\r\n",
    "RESP2 null": b"$-1\r\n",
    "RESP2 null array": b"*-1\r\n",
    "empty array": b"*0\r\n",
    "nested array": b"*2\r\n*2\r\n:1\r\n$1\r\na\r\n+OK\r\n",
    "RESP3 null": b"_\r\n",
    "map": b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
    "set": b"~2\r\n:1\r\n:2\r\n",
    "push": b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n",
    "double": b",1.5\r\n",
    "verbatim": b"=7\r\ntxt:abc\r\n",
    "attribute": b"|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n",
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
def test_a_message_is_whole_with_its_last_byte_and_not_before(message: bytes):
    splitter = FrameSplitter()
    assert [splitter.feed(message[i : i + 1]) for i in range(len(message) - 1)] == [[]] * (len(message) - 1)
    assert splitter.feed(message[-1:]) == [message]


@given(st.lists(st.sampled_from(list(MESSAGES.values()))), st.lists(st.integers(min_value=1, max_value=40)))
def test_a_stream_is_cut_alike_however_it_arrives(messages: list[bytes], sizes: list[int]):
    stream, splitter, seen = b"".join(messages), FrameSplitter(), []
    for size in sizes:
        chunk, stream = stream[:size], stream[size:]
        seen += splitter.feed(chunk)
    assert seen + splitter.feed(stream) == messages


def test_a_command_is_its_words_with_the_name_in_upper_case():
    assert parse_command(b"*3\r\n$3\r\nset\r\n$3\r\na\r\n\r\n$0\r\n\r\n") == (b"SET", b"a\r\n", b"")
    assert parse_command(b"ping hello\r\n") == (b"PING", b"hello")
    assert parse_command(b"\r\n") == ()


def test_only_a_push_answers_no_command():
    assert {name for name, message in MESSAGES.items() if is_push(message)} == {"push"}


def test_an_error_reply_begins_with_one_dash():
    assert error_reply("OOM no") == error_reply("-OOM no") == b"-OOM no\r\n"
