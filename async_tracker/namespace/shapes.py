"""The notation of the rule table: where a command's keys are, written as Python slices of its arguments.

    1, 2          one key, at that place (the command's own words count: GET is 0 in ``GET key``, ``XINFO STREAM key`` has its key at 2)
    1:  1:3  1:-1 a slice: all from 1, two keys, all but the last
    1::2          every second (MSET key value key value)
    #2            the number of keys stands at 2, the keys follow
    #1*2          the same, each key followed by a value
    1 #2          several of these, parted by a space
    -             no keys
    @sort         the parser of that name reads them

A shape becomes a function from arguments to new arguments, once per namespace and spelling; a call costs one look-up more.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from async_tracker.errors import ConfigError, UnsupportedCommand
from async_tracker.namespace.naming import Naming
from async_tracker.namespace.parsers import PARSERS, Parser

Rewrite = Callable[[tuple[Any, ...]], Sequence[Any]]

PART = re.compile(r"(?P<place>\d+)|(?P<slice>\d+:(-?\d+)?(:\d+)?)|#(?P<count>\d+)(\*(?P<step>\d+))?")


def check_shape(shape: str) -> str:
    """Return the shape, or raise ConfigError with what a shape can be.

    >>> check_shape("1 #2"), check_shape("1::2")
    ('1 #2', '1::2')
    """
    if shape == "-" or (shape.startswith("@") and shape[1:] in PARSERS):
        return shape
    parts = [PART.fullmatch(part) for part in shape.split(" ")]
    if not all(parts) or any(_first_place(part) < 1 for part in shape.split(" ")):
        raise ConfigError(
            f"{shape!r} does not say where keys are: write '1' (one key), '1:' (all from 1), '1:-1' (all but the last), '1::2' (every "
            "second), '#2' (their number is at 2), several parted by a space, or '-' (no keys)"
        )
    return shape


def _first_place(part: str) -> int:
    found = re.search(r"\d+", part)
    return int(found.group()) if found else 0


def rewrite_for(shape: str, names: Naming, *, shift: int = 0) -> Rewrite:
    """Return the function that writes a command of this shape into the namespace.

    ``shift`` is the number of the command's words that came joined in the first argument (redis-py sends ``"XINFO STREAM"`` as one).

    >>> names = Naming("app", str.encode)
    >>> rewrite_for("1 #2", names)(("ZUNIONSTORE", "d", 2, "a", "b", "WEIGHTS", 1, 2))
    ('ZUNIONSTORE', 'app:d', 2, 'app:a', 'app:b', 'WEIGHTS', 1, 2)
    """
    if shape == "-":
        return _unchanged
    if shape.startswith("@"):
        return _parsed(PARSERS[shape[1:]], names, shift)
    if shape == "1" and not shift:
        return _first(names)
    if shape == "1:" and not shift:
        return _all(names)
    parts = [_part_rewriter(part, names, shift) for part in shape.split(" ")]
    if len(parts) == 1:
        return parts[0]

    def rewrite(args: tuple[Any, ...]) -> Sequence[Any]:
        changed: Sequence[Any] = args
        for part in parts:
            changed = part(tuple(changed))
        return changed

    return rewrite


def _unchanged(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args


def _parsed(parse: Parser, names: Naming, shift: int) -> Rewrite:
    if not shift:
        return lambda args: parse(list(args), names)

    def rewrite(args: tuple[Any, ...]) -> Sequence[Any]:
        words = args[0].split()
        return [args[0], *parse([*words, *args[1:]], names)[len(words) :]]

    return rewrite


def _first(names: Naming) -> Rewrite:
    """The shape of most calls, written out so that it costs as little as it can."""
    text, add = names.text, names.add

    def rewrite(args: tuple[Any, ...]) -> Sequence[Any]:
        count = len(args)
        if count == 2:
            command, key = args
            return (command, text + key if type(key) is str else add(key))
        if count < 2:
            return args
        key = args[1]
        return (args[0], text + key if type(key) is str else add(key), *args[2:])

    return rewrite


def _all(names: Naming) -> Rewrite:
    """All arguments: the shape of MGET and DEL."""
    text, add = names.text, names.add

    def rewrite(args: tuple[Any, ...]) -> Sequence[Any]:
        return (args[0], *[text + key if type(key) is str else add(key) for key in args[1:]])

    return rewrite


def _part_rewriter(part: str, names: Naming, shift: int) -> Rewrite:
    match = PART.fullmatch(part)
    if match is None:
        raise ConfigError(f"{part!r} is no part of a shape")
    if match["count"]:
        return _counted(int(match["count"]) - shift, int(match["step"] or 1), names)
    numbers = [int(number) if number else None for number in part.split(":")]
    first = (numbers[0] or 0) - shift
    if match["place"]:
        return _sliced(slice(first, first + 1), names)
    last = numbers[1] - shift if numbers[1] is not None and numbers[1] > 0 else numbers[1]
    return _sliced(slice(first, last, numbers[2] if len(numbers) > 2 else None), names)


def _sliced(places: slice, names: Naming) -> Rewrite:
    text, add = names.text, names.add

    def rewrite(args: tuple[Any, ...]) -> Sequence[Any]:
        changed = list(args)
        changed[places] = [text + key if type(key) is str else add(key) for key in args[places]]
        return changed

    return rewrite


def _counted(place: int, step: int, names: Naming) -> Rewrite:
    text, add = names.text, names.add

    def rewrite(args: tuple[Any, ...]) -> Sequence[Any]:
        if len(args) <= place:
            return args
        try:
            count = int(args[place])
        except (TypeError, ValueError):
            raise UnsupportedCommand(
                f"{args[0]!r} needs the number of its keys at {place}, not {args[place]!r}: nothing was sent"
            ) from None
        first, last = place + 1, place + 1 + max(count, 0) * step
        if step == 1:
            return (*args[:first], *[text + key if type(key) is str else add(key) for key in args[first:last]], *args[last:])
        changed = list(args)
        changed[first:last:step] = [text + key if type(key) is str else add(key) for key in args[first:last:step]]
        return changed

    return rewrite
