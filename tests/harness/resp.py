"""Where one message of the Redis protocol ends and the next begins, and what a command is called; nothing more of it."""

from collections.abc import Iterator

Command = tuple[bytes, ...]

_LINE_END = b"\r\n"
_LENGTH_PREFIXED = b"$=!"
_AGGREGATES = {b"*"[0]: 1, b"~"[0]: 1, b">"[0]: 1, b"%"[0]: 2, b"|"[0]: 2}  # type byte -> elements per counted entry
_PUSH = b">"


class FrameSplitter:
    """Cuts a stream, in either direction, RESP2 or RESP3, into whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived, and return the messages that it completes."""
        self._buffer += data
        frames = []
        while (end := _frame_end(self._buffer, 0)) is not None:
            frames.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
        return frames


def parse_command(frame: bytes) -> Command:
    """Return the words of a request; its name, the first of them, in upper case."""
    words = list(_words(frame)) if frame.startswith(b"*") else frame.split()
    return (words[0].upper(), *words[1:]) if words else ()


def is_push(frame: bytes) -> bool:
    """Tell whether a message of the server answers no command."""
    return frame.startswith(_PUSH)


def error_reply(text: str) -> bytes:
    """Return the reply of a server that refuses: ``error_reply("OOM command not allowed")``."""
    return b"-" + text.removeprefix("-").encode() + _LINE_END


def _frame_end(buffer: bytearray, start: int) -> int | None:
    line_end = buffer.find(_LINE_END, start)
    if line_end < 0:
        return None
    end = line_end + len(_LINE_END)
    kind = buffer[start]
    if kind in _LENGTH_PREFIXED:
        return _after_payload(buffer, end, length=int(buffer[start + 1 : line_end]))
    if kind in _AGGREGATES:
        count = int(buffer[start + 1 : line_end]) * _AGGREGATES[kind]
        if kind == b"|"[0]:
            count += 1  # an attribute stands before the message that it belongs to
        return _after_elements(buffer, end, count=count)
    return end


def _after_payload(buffer: bytearray, start: int, *, length: int) -> int | None:
    if length < 0:  # a null of RESP2 has no payload
        return start
    end = start + length + len(_LINE_END)
    return end if end <= len(buffer) else None


def _after_elements(buffer: bytearray, start: int, *, count: int) -> int | None:
    end: int | None = start
    for _ in range(count):
        if end is None or end >= len(buffer):
            return None
        end = _frame_end(buffer, end)
    return end


def _words(frame: bytes) -> Iterator[bytes]:
    position = frame.index(_LINE_END) + len(_LINE_END)
    while position < len(frame):
        line_end = frame.index(_LINE_END, position)
        length = int(frame[position + 1 : line_end])
        begin = line_end + len(_LINE_END)
        yield frame[begin : begin + length]
        position = begin + length + len(_LINE_END)
