"""What goes to Redis and what comes back, as bytes: the one place that knows the shapes of replies. Knows no driver."""

from collections.abc import Sequence

Argument = str | bytes | int | float


def packed(value: Argument) -> bytes | int | float:
    """Make UTF-8 bytes of text, whatever it is; numbers are left to the driver.

    One name that is no text must not keep the others of its batch from being written.

    >>> packed("é"), packed("\\udcff"), packed("\\ud800")
    (b'\\xc3\\xa9', b'\\xff', b'\\xed\\xa0\\x80')
    """
    if not isinstance(value, str):
        return value
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


def text(value: bytes | str) -> str:
    """Read what `packed` wrote; anything else that is no UTF-8 comes back with surrogates instead of an error."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """Make a dict of a flat reply of names and values.

    >>> pairs([b"a", b"1", b"b", b"2"])
    {'a': '1', 'b': '2'}
    """
    texts = iter([part.decode("utf-8", "surrogateescape") if isinstance(part, bytes) else part for part in flat])
    return dict(zip(texts, texts, strict=True))
