"""Every way of writing every command, made from what a server says of its own commands (``COMMAND DOCS``).

A form is a tuple of texts, the command's words first. Each argument is tried in each of its ways while the others stay as plain as they
can be, and once with everything that is optional; so every option of every command stands in some form.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

Form = tuple[str, ...]


class Key(NamedTuple):
    """A place for a key, to be named when the form is complete."""


class NumberOfKeys(NamedTuple):
    """A place for the number of the keys that follow."""


Token = str | Key | NumberOfKeys
Ways = list[list[Token]]

EMPTY = '""'
VALUES = {"integer": "1", "double": "1.5", "unix-time": "1700000000", "pattern": "p*"}
KEY_NAMES = ("k", "STORE", "limit", "KEYS", "{tag}k", "streams")
"""Keys that are called like options: whoever looks for a word, rather than reading the command, is misled by them."""

HAND_WRITTEN: tuple[Form, ...] = tuple(
    tuple("" if word == EMPTY else word for word in line.split())
    for line in """
    VADD k VALUES 2 1 1 element
    VADD k REDUCE 2 VALUES 2 1 1 element CAS NOQUANT EF 2 SETATTR {} M 2
    VCARD k
    VDIM k
    VEMB k element RAW
    VGETATTR k element
    VINFO k
    VISMEMBER k element
    VLINKS k element WITHSCORES
    VRANDMEMBER k 2
    VRANGE k - + 2
    VREM k element
    VSETATTR k element {}
    VSIM k ELE element WITHSCORES COUNT 2
    SORT k BY STORE GET # GET w_* LIMIT 0 STORE STORE STORE
    SORT k LIMIT 0 1 ALPHA DESC STORE GET
    SORT_RO k BY nosort GET #
    GEORADIUS k 1 1 1 km COUNT 1 ANY WITHCOORD
    GEORADIUS k 1 1 1 km STOREDIST STORE
    GEORADIUSBYMEMBER k STORE 1 km STORE STOREDIST
    XREADGROUP GROUP STREAMS STREAMS COUNT 1 BLOCK 1 NOACK STREAMS STREAMS k > >
    XREAD COUNT 1 BLOCK 1 STREAMS STREAMS COUNT 0 0
    MIGRATE host 1 k 0 1 COPY REPLACE AUTH KEYS
    MIGRATE host 1 k 0 1 AUTH2 KEYS KEYS
    MIGRATE host 1 "" 0 1 COPY KEYS k STORE
    MIGRATE host 1 "" 0 1 AUTH secret KEYS k COPY
    ZUNIONSTORE WEIGHTS 2 AGGREGATE WEIGHTS WEIGHTS 1 2 AGGREGATE SUM
    EVAL script 2 k 1 k argument
    EVAL script 0 argument
    BITOP NOT k STORE
    COPY k STORE DB 1 REPLACE
    LCS k STORE IDX
    OBJECT FREQ FREQ
    MSET k v STORE v
    PFDEBUG GETREG k
    STRALGO LCS KEYS KEYS STRINGS
    """.strip().splitlines()
)
"""Of commands that the servers do not document, and of those whose options can be mistaken for something else."""


def documented_forms(docs: dict[str, Any]) -> Iterator[Form]:
    """Write every form of every command of a ``COMMAND DOCS`` reply."""
    for name, entry in docs.items():
        subcommands = entry.get("subcommands") or {}
        for full_name, subentry in subcommands.items():
            yield from _forms(full_name.upper().split("|"), subentry.get("arguments") or [])
        if not subcommands:
            yield from _forms([name.upper()], entry.get("arguments") or [])


def _forms(words: list[str], arguments: list[dict[str, Any]]) -> Iterator[Form]:
    ways = [_ways(argument) for argument in arguments]
    plain = [way[0] for way in ways]
    full = [max(way, key=len) for way in ways]
    written = [plain, full]
    for at, alternatives in enumerate(ways):
        written += [[*plain[:at], alternative, *plain[at + 1 :]] for alternative in alternatives[1:]]
    for parts in written:
        tokens = [token for part in parts for token in part]
        for first_name in (0, 1):
            yield (*words, *_named(tokens, first_name))


def _named(tokens: list[Token], first_name: int) -> Iterator[str]:
    names = count(first_name)
    for at, token in enumerate(tokens):
        if isinstance(token, Key):
            yield KEY_NAMES[next(names) % len(KEY_NAMES)]
        elif isinstance(token, NumberOfKeys):
            yield str(sum(isinstance(later, Key) for later in tokens[at:]))
        else:
            yield token


def _ways(argument: dict[str, Any]) -> Ways:
    """Return the ways to write an argument, the plainest first."""
    flags = argument.get("flags") or []
    token = argument.get("token")
    token = "" if token == EMPTY else token
    ways = _values(argument)
    if "multiple" in flags:
        again = "multiple_token" in flags
        ways += [[*way, *([token] if again and token else []), *other] for way, other in zip(ways, reversed(ways), strict=True)]
    if token is not None and argument["type"] != "pure-token":
        ways = [[token, *way] for way in ways]
    return [[], *ways] if "optional" in flags else ways


def _values(argument: dict[str, Any]) -> Ways:
    kind = argument["type"]
    if kind == "key":
        return [[Key()]]
    if kind == "pure-token":
        return [["" if argument["token"] == EMPTY else argument["token"]]]
    if kind == "oneof":
        return [way for inner in argument["arguments"] for way in _ways(inner)]
    if kind == "block":
        parts = [_ways(inner) for inner in argument["arguments"]]
        plain = [token for part in parts for token in part[0]]
        full = [token for part in parts for token in max(part, key=len)]
        return [plain] if plain == full else [plain, full]
    if argument["name"] == "numkeys":
        return [[NumberOfKeys()]]
    return [[VALUES.get(kind, "v")]]
