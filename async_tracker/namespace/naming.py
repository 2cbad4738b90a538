"""How a namespace names things on the server, and how it takes its name off again.

Pure: no client, no table of commands. ``Naming`` is what every rule and every reply is given.
"""

import re
from collections.abc import Callable
from typing import Any

from async_tracker.config import check_namespace
from async_tracker.errors import ConfigError, UnsupportedCommand

SEPARATOR = ":"
KEYSPACE, KEYEVENT = "__keyspace@", "__keyevent@"
NOTIFICATION_MARKS = ("__key", "__subkey")
KEY_FOLLOWS = "__:"


def word(argument: Any) -> bytes:
    """Read an argument as the server reads an option's name: bytes, without regard to the case of ASCII letters.

    >>> word("store"), word(b"Store"), word(7)
    (b'STORE', b'STORE', b'7')
    """
    if isinstance(argument, str):
        return argument.encode("utf-8", "surrogatepass").upper()
    if isinstance(argument, (bytes, bytearray, memoryview)):
        return bytes(argument).upper()
    return str(argument).encode().upper()


def glob_escape(text: str) -> str:
    r"""Write text so that the server's glob patterns match it and nothing else.

    >>> print(glob_escape(r"we[i]rd*?\x"))
    we\[i\]rd\*\?\\x
    """
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _encoded(namespace: str, text: str, encode: Callable[[Any], bytes]) -> bytes:
    try:
        return encode(text)
    except UnicodeEncodeError as exc:
        raise ConfigError(
            f"namespace {namespace!r} cannot be written in the client's encoding ({exc.encoding}): write a namespace in plain ASCII, "
            "or make the client with encoding='utf-8'"
        ) from exc


class Naming:
    """The names of one namespace: text and bytes, plain and as a glob pattern. Keys keep the kind they came in.

    ``encode`` is the client's own encoder: what is neither text nor bytes is a key exactly if the client takes it for one.

    >>> names = Naming("app", str.encode)
    >>> names.add("k"), names.add(b"k"), names.strip(b"app:app:k"), names.strip("other:k")
    ('app:k', b'app:k', b'app:k', 'other:k')
    """

    __slots__ = ("encode", "namespace", "pattern_raw", "pattern_text", "raw", "text")

    def __init__(self, namespace: str, encode: Callable[[Any], bytes]) -> None:
        self.namespace = check_namespace(namespace)
        self.encode = encode
        self.text = namespace + SEPARATOR
        self.raw = _encoded(namespace, self.text, encode)
        self.pattern_text = glob_escape(self.text)
        self.pattern_raw = encode(self.pattern_text)
        if encode("*:") != b"*:":
            raise ConfigError(
                "a namespace needs an encoding that extends ASCII, such as utf-8 or latin-1; redis-py itself cannot use another"
            )

    def add(self, key: Any) -> Any:
        """Name a key on the server. Numbers become bytes; what redis-py refuses as a key (None, bool) it refuses here."""
        if isinstance(key, str):
            return self.text + key
        if isinstance(key, bytes):
            return self.raw + key
        return self.raw + self.encode(key)

    def full_key(self, key: Any) -> bytes:
        """Tell, as bytes, what a key is called on the server."""
        return self.raw + self.encode(key)

    def strip(self, name: Any) -> Any:
        """Take the prefix off a name that the server gave; what does not carry it comes back as it is."""
        if isinstance(name, str):
            return name.removeprefix(self.text)
        if isinstance(name, bytes):
            return name.removeprefix(self.raw)
        return name

    def add_to_pattern(self, pattern: Any) -> Any:
        """Confine a glob pattern to the namespace; glob characters in the namespace's own name stand for themselves."""
        if isinstance(pattern, str):
            return self.pattern_text + pattern
        return self.pattern_raw + self.encode(pattern)

    def add_to_channel(self, channel: Any) -> Any:
        """Name a channel to subscribe to. ``__keyspace@0__:k`` tells of the namespace's ``k``; ``__keyevent@0__:del`` stays as it is."""
        return self._placed(channel, self.add)

    def add_to_channel_pattern(self, pattern: Any) -> Any:
        """Name a pattern of channels to subscribe to; keyspace notifications as in ``add_to_channel``.

        A pattern that could match keyspace and keyevent channels alike (``__key*__:*``) cannot be confined: UnsupportedCommand.
        """
        return self._placed(pattern, self.add_to_pattern)

    def strip_channel(self, channel: Any) -> Any:
        """Take off what ``add_to_channel`` added."""
        return self._stripped(channel, self.text, self.raw)

    def strip_pattern(self, pattern: Any) -> Any:
        """Take off what ``add_to_channel_pattern`` added."""
        return self._stripped(pattern, self.pattern_text, self.pattern_raw)

    def _placed(self, channel: Any, add: Callable[[Any], Any]) -> Any:
        """Put the namespace before a channel, or, in a keyspace notification's, before the key."""
        whole = bytes(channel) if isinstance(channel, memoryview) else channel
        text = whole.decode("latin-1") if isinstance(whole, bytes) else str(whole)
        if not text.startswith(NOTIFICATION_MARKS):
            return add(channel)
        head, mark, _ = text.partition(KEY_FOLLOWS)
        if mark and text.startswith(KEYEVENT):
            return whole
        if mark and text.startswith(KEYSPACE):
            cut = len(head) + len(mark)
            return whole[:cut] + add(whole[cut:])
        raise UnsupportedCommand(
            f"the channel {channel!r} cannot be confined to the namespace {self.namespace!r}: subscribe to '__keyspace@<db>__:<key>' "
            "or '__keyevent@<db>__:<event>', each by a pattern of its own"
        )

    def _stripped(self, channel: Any, text: str, raw: bytes) -> Any:
        if isinstance(channel, str):
            head, mark, tail = channel.partition(KEY_FOLLOWS)
            return head + mark + tail.removeprefix(text) if mark and head.startswith(KEYSPACE) else channel.removeprefix(text)
        if isinstance(channel, bytes):
            # Latin-1 gives each byte a character of its own and back: one rule serves both kinds.
            return self._stripped(channel.decode("latin-1"), raw.decode("latin-1"), b"").encode("latin-1")
        return channel
