"""Make the rule table from what servers say of their own commands: ``python -m async_tracker.namespace.tabulate URL ... > table.py``.

Each server is asked for ``COMMAND`` (since Redis 7 with its key specifications, before that with first, last and step). Servers must
agree; where one says nothing about a command, another's word counts. What no server at hand has yet is in ``AHEAD``, what belongs to
modules in ``MODULES``, and what no slice can describe in ``PARSED``.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from async_tracker.namespace.refusals import REFUSED

PARSED: Mapping[str, str] = {
    "SORT": "@sort",
    "SORT_RO": "@sort",
    "GEORADIUS": "@georadius",
    "GEORADIUS_RO": "1",
    "GEORADIUSBYMEMBER": "@georadiusbymember",
    "GEORADIUSBYMEMBER_RO": "1",
    "XREAD": "@xread",
    "XREADGROUP": "@xread",
    "MIGRATE": "@migrate",
    "SCAN": "@scan",
    "KEYS": "@keys",
    "PUBLISH": "1",
    "SPUBLISH": "1",
    "SUBSCRIBE": "@subscribe",
    "UNSUBSCRIBE": "@subscribe",
    "PSUBSCRIBE": "@psubscribe",
    "PUNSUBSCRIBE": "@psubscribe",
    "SSUBSCRIBE": "1:",
    "SUNSUBSCRIBE": "1:",
    "PUBSUB CHANNELS": "@pubsub_channels",
    "PUBSUB SHARDCHANNELS": "@pubsub_channels",
    "PUBSUB NUMSUB": "2:",
    "PUBSUB SHARDNUMSUB": "2:",
    "CLIENT TRACKING": "@client_tracking",
    "CLUSTER KEYSLOT": "2",
    "DEBUG OBJECT": "2",
    "STRALGO LCS": "@stralgo",
}
"""Read by a parser, or with a name in them of which ``COMMAND`` says nothing."""

JSON = """
    ARRAPPEND ARRINDEX ARRINSERT ARRLEN ARRPOP ARRTRIM CLEAR DEL FORGET GET MERGE
    NUMINCRBY NUMMULTBY NUMPOWBY OBJKEYS OBJLEN RESP SET STRAPPEND STRLEN TOGGLE TYPE
"""
TIME_SERIES = "ADD ALTER CREATE DECRBY DEL GET INCRBY INFO RANGE READ REVRANGE"
BLOOM = "ADD CARD DEBUG EXISTS INFO INSERT LOADCHUNK MADD MEXISTS RESERVE SCANDUMP"
CUCKOO = "ADD ADDNX COMPACT COUNT DEBUG DEL EXISTS INFO INSERT INSERTNX LOADCHUNK MEXISTS RESERVE SCANDUMP"
COUNT_MIN = "INCRBY INFO INITBYDIM INITBYPROB QUERY"
TOP_K = "ADD COUNT INCRBY INFO LIST QUERY RESERVE"
T_DIGEST = "ADD BYRANK BYREVRANK CDF CREATE INFO MAX MIN QUANTILE RANK RESET REVRANK TRIMMED_MEAN"


def _named(family: str, names: str) -> tuple[str, ...]:
    return tuple(family + name for name in names.split())


MODULES: Mapping[str, tuple[str, ...]] = {
    "1": (
        *_named("JSON.", JSON),
        *_named("TS.", TIME_SERIES),
        *_named("BF.", BLOOM),
        *_named("CF.", CUCKOO),
        *_named("CMS.", COUNT_MIN),
        *_named("TOPK.", TOP_K),
        *_named("TDIGEST.", T_DIGEST),
    ),
    "1:3": ("TS.CREATERULE", "TS.DELETERULE"),
    "1:-1": ("JSON.MGET",),
    "1::3": ("JSON.MSET", "TS.MADD"),
    "#1": ("TS.NRANGE", "TS.NREVRANGE"),
    "1 #2": ("CMS.MERGE", "TDIGEST.MERGE"),
    "2": ("JSON.DEBUG MEMORY",),
    "-": ("JSON.DEBUG HELP",),
}
"""The modules' own ``COMMAND`` entries say that every argument is a key, or only the first: what counts is their documentation."""

ARRAYS = "COUNT DEL DELRANGE GET GETRANGE GREP INFO INSERT LASTITEMS LEN MGET MSET NEXT OP RING SCAN SEEK SET"

AHEAD: Mapping[str, tuple[str, ...]] = {
    "1": ("DELEX", "DIGEST", "INCREX", "XCFGSET", "XNACK", *_named("AR", ARRAYS)),
    "1:3": ("LMOVEM", "BLMOVEM"),
    "#1": ("SDIFFCARD", "SUNIONCARD"),
    "2": ("HIMPORT SET",),
    "-": ("HIMPORT PREPARE", "HIMPORT DISCARD", "HIMPORT DISCARDALL"),
}
"""Of Redis 8.4 to 8.10, which no server of the tests has."""


def shape_of(entry: list[Any]) -> str:
    """Read one entry of ``COMMAND``: its key specifications, or, from a server that has none, first, last and step."""
    if len(entry) <= 8:
        first, last, step = entry[3:6]
        if not first:
            return "-"
        if first == last:
            return str(first)
        stop = "" if last == -1 else str(last + 1)
        return f"{first}:{stop}" + (f":{step}" if step > 1 else "")
    specs = [_as_dict(spec) for spec in entry[8]]
    return _joined([_part(spec) for spec in specs if "not_key" not in spec["flags"]])


def _part(spec: Mapping[str, Any]) -> str:
    begin, find = _as_dict(spec["begin_search"]), _as_dict(spec["find_keys"])
    if begin["type"] != "index" or find["type"] == "unknown":
        return "?"
    first, how = _as_dict(begin["spec"])["index"], _as_dict(find["spec"])
    if find["type"] == "keynum":
        step = how["keystep"]
        return f"#{first + how['keynumidx']}" + (f"*{step}" if step > 1 else "")
    last, step = how["lastkey"], how["keystep"]
    if last == 0:
        return str(first)
    stop = str(first + last + 1) if last > 0 else "" if last == -1 else str(last + 1)
    return f"{first}:{stop}" + (f":{step}" if step > 1 else "")


def _joined(parts: list[str]) -> str:
    """Two neighbours are one slice; nothing is the sign for no keys.

    >>> _joined(["1", "2"]), _joined(["2", "3:"]), _joined([]), _joined(["1", "#2"])
    ('1:3', '2:', '-', '1 #2')
    """
    if "?" in parts:
        return "?"
    if len(parts) == 2 and parts[0].isdigit():
        following = str(int(parts[0]) + 1)
        if parts[1] == following:
            return f"{parts[0]}:{int(following) + 1}"
        if parts[1] == following + ":":
            return f"{parts[0]}:"
    return " ".join(parts) or "-"


def _as_dict(pairs: Any) -> dict[str, Any]:
    return dict(pairs) if isinstance(pairs, dict) else dict(zip(pairs[::2], pairs[1::2], strict=True))


def commands_of(client: "redis.Redis") -> dict[str, str]:
    """Ask a server for its commands and subcommands; the value is the shape, or "?" where only a parser can tell."""
    found: dict[str, str] = {}
    waiting = list(client.execute_command(b"COMMAND"))  # type: ignore[no-untyped-call]  # as bytes: without redis-py's own reading
    while waiting:
        entry = waiting.pop()
        subcommands = entry[9] if len(entry) > 9 else []
        waiting += subcommands
        found[entry[0].upper().replace("|", " ")] = shape_of(entry)
        if len(entry) <= 8 and "movablekeys" in entry[2]:
            found[str(entry[0]).upper()] = "?"
    return found


def merge(servers: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """One table out of several; a parser's word counts most, then a specification. Servers that contradict each other raise ValueError."""
    table: dict[str, str] = {}
    for commands in servers:
        for name, shape in commands.items():
            known = table.setdefault(name, shape)
            if known in ("?", "-") and name not in PARSED:
                table[name] = shape if shape != "?" else known
            elif shape not in (known, "?", "-") and name not in PARSED:
                raise ValueError(f"{name} is {known} on one server and {shape} on another")
    for source in (MODULES, AHEAD):
        table.update({name: shape for shape, names in source.items() for name in names})
    table.update(PARSED)
    containers = {name.split(" ")[0] for name in table if " " in name}
    table = {name: shape for name, shape in table.items() if name not in containers}
    unreadable = [name for name, shape in table.items() if shape == "?"]
    if unreadable:
        raise ValueError(f"only a parser could read {', '.join(sorted(unreadable))}: write one, and name it in PARSED")
    return {name: shape for name, shape in sorted(table.items()) if name not in REFUSED}


def render(table: Mapping[str, str]) -> str:
    """Write the table as a Python module, a shape to a line of its own."""
    by_shape: dict[str, list[str]] = {}
    for name, shape in table.items():
        by_shape.setdefault(shape, []).append(name)
    lines = [
        '"""Where the keys of every command are. Made by ``python -m async_tracker.namespace.tabulate``; do not edit.',
        "",
        "The notation is that of ``shapes``. Refused commands are not in here but, with their reasons, in ``refusals``.",
        '"""',
        "",
        "from collections.abc import Mapping",
        "",
        "COMMANDS_BY_SHAPE: Mapping[str, tuple[str, ...]] = {",
    ]
    for shape, names in sorted(by_shape.items()):
        one_line = f'    "{shape}": ("{names[0]}",),'
        lines += [one_line] if len(names) == 1 else [f'    "{shape}": (', *(f'        "{name}",' for name in names), "    ),"]
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    tables = [commands_of(redis.Redis.from_url(url, decode_responses=True, protocol=2)) for url in sys.argv[1:]]
    sys.stdout.write(render(merge(tables)))
