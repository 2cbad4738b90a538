"""What cannot be confined is refused before anything is sent, with what to write instead."""

import ast
from pathlib import Path

import pytest
import redis

import async_tracker.namespace
from async_tracker.errors import ConfigError, UnsupportedCommand
from async_tracker.namespace import Namespace, SyncNamespace
from async_tracker.namespace.naming import Naming
from async_tracker.namespace.refusals import REFUSED
from async_tracker.namespace.rules import SHAPES, Rules

ADVICE = [
    ("FLUSHDB", "clear()"),
    ("FLUSHALL", "clear()"),
    ("DBSIZE", "count()"),
    ("RANDOMKEY", "scan_iter()"),
    ("MONITOR", ".redis"),
    ("SELECT", "db="),
    ("FT.SEARCH", ".redis"),
    ("TS.MRANGE", "one by one"),
    ("CLUSTER GETKEYSINSLOT", "scan_iter()"),
    ("NO.SUCH", "register"),
    ("XINFO NOSUCH", "register"),
]


@pytest.fixture
def ns(redis_client) -> Namespace:
    return Namespace(redis_client, "app")


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("split", [True, False], ids=["in words", "in one"])
async def test_a_refused_command_raises_however_it_is_written(ns, name, split):
    words = name.lower().split() if split else [name]

    with pytest.raises(UnsupportedCommand, match="nothing was sent"):
        await ns.execute_command(*words, "argument")


@pytest.mark.parametrize(("name", "advice"), ADVICE)
async def test_a_refusal_says_what_to_write_instead(ns, name, advice):
    with pytest.raises(UnsupportedCommand) as caught:
        await ns.execute_command(*name.split(), "argument")
    assert advice in str(caught.value)
    assert name in str(caught.value)


async def test_nothing_reaches_the_server_when_a_command_is_refused(ns, raw):
    raw.set("other", "decoy")
    for name in ("FLUSHALL", "SWAPDB", "NO.SUCH", "RANDOMKEY"):
        with pytest.raises(UnsupportedCommand):
            await ns.execute_command(name, 0, 1)

    stats = raw.info("commandstats")
    assert not [name for name in stats if name.split("_")[1] in ("swapdb", "no.such", "randomkey")]
    assert raw.get("other") == b"decoy"


@pytest.mark.parametrize("call", ["flushdb", "flushall", "dbsize", "randomkey", "monitor", "ft", "graph"])
async def test_methods_of_refused_commands_are_refused(ns, raw, call):
    for namespace in (ns, SyncNamespace(raw, "app")):
        with pytest.raises(UnsupportedCommand):
            getattr(namespace, call)()


async def test_no_command_is_both_refused_and_in_the_table():
    assert set(REFUSED) & set(SHAPES) == set()


async def test_no_command_at_all_is_refused_as_well(ns):
    for nothing in ("", b"", " "):
        with pytest.raises(UnsupportedCommand):
            await ns.execute_command(nothing)


@pytest.fixture
def forgets_registrations(monkeypatch):
    monkeypatch.setattr("async_tracker.namespace.rules.SHAPES", SHAPES.copy())


def test_a_registered_command_is_prefixed(forgets_registrations):
    Namespace.register("MY.COPY", "1:3")
    SyncNamespace.register("my.union", "1 #2")
    rules = Rules(Naming("app", str.encode))

    assert list(rules.prepare(("my.copy", "a", b"b", "c"))[0]) == ["my.copy", "app:a", b"app:b", "c"]
    assert list(rules.prepare(("MY.UNION", "d", 2, "a", "b", "x"))[0]) == ["MY.UNION", "app:d", 2, "app:a", "app:b", "x"]


@pytest.mark.parametrize("shape", ["", "0", "x", "1:2:3:4", "@nothing", "#", "-1", "1,2", "0:"])
def test_a_shape_that_is_none_is_a_config_error(forgets_registrations, shape):
    with pytest.raises(ConfigError):
        Namespace.register("MY.COMMAND", shape)


@pytest.mark.parametrize("name", ["FLUSHDB", "flushall", "FT.SEARCH", "DEBUG SLEEP"])
def test_a_refused_command_cannot_be_registered(name):
    with pytest.raises(UnsupportedCommand):
        Namespace.register(name, "-")


def test_a_known_command_cannot_be_registered_otherwise():
    with pytest.raises(UnsupportedCommand, match="already"):
        Namespace.register("GET", "-")


async def test_a_refused_command_passes_where_the_caller_allows_it(redis_client, raw):
    raw.set("other", 1)

    assert await Namespace(redis_client, "app", allow=["DBSIZE"]).dbsize() == 1


async def test_a_number_of_keys_that_is_none_is_refused(ns):
    with pytest.raises(UnsupportedCommand, match="number of its keys"):
        await ns.execute_command("EVAL", "return 1", "many", "k")


async def test_an_option_of_xread_that_nobody_knows_is_refused(ns):
    with pytest.raises(UnsupportedCommand, match="option"):
        await ns.execute_command("XREAD", "NOVEL", "1", "STREAMS", "k", "0")


async def test_too_few_arguments_are_the_servers_business(ns):
    for command in (
        ["GET"],
        ["MSET", "k"],
        ["EVAL", "return 1"],
        ["XREAD"],
        ["SORT"],
        ["SCAN"],
        ["MIGRATE", "h"],
        ["OBJECT"],
        ["XREAD", "COUNT"],
    ):
        with pytest.raises(redis.ResponseError):
            await ns.execute_command(*command)


PURE = ["naming", "parsers", "refusals", "replies", "rules", "shapes", "table"]


@pytest.mark.parametrize("module", PURE)
def test_the_rules_know_no_client(module):
    source = Path(async_tracker.namespace.__file__).with_name(f"{module}.py").read_text()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert imported <= {"async_tracker", "collections", "functools", "re", "typing"}
