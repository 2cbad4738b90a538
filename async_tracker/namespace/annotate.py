"""Write the types of the commands: ``python -m async_tracker.namespace.annotate > commands.pyi``.

redis-py types a command as ``Union[Awaitable[int], int]``, because one method serves both kinds of clients; ``await`` of that is an
error under ``mypy --strict``. Here each kind has its own: the names and parameters are redis-py's (run this with the newest), a reply is
what it is in every version and protocol, or Any. A stub changes only what a type checker says.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import FunctionType

from async_tracker.namespace.commands import AsyncCommands, AsyncQueuedCommands, SyncCommands, SyncQueuedCommands

HEADER = '''"""The types of redis-py's commands. Made by ``python -m async_tracker.namespace.annotate``; do not edit."""
# ruff: noqa: A002 - the names of parameters are redis-py's

from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from redis.commands.core import AsyncScript, Script
from redis.typing import (
    AbsExpiryT,
    BitfieldOffsetT,
    ChannelT,
    ConsumerT,
    EncodableT,
    ExpiryT,
    FieldT,
    GroupT,
    KeysT,
    KeyT,
    PatternT,
    ScriptTextT,
    StreamIdT,
    TimeoutSecT,
    ZScoreBoundT,
)
'''
KNOWN = frozenset(
    [
        *("Any", "bool", "bytes", "datetime", "float", "int"),
        *("str", "timedelta", "AbsExpiryT", "BitfieldOffsetT", "ChannelT", "ConsumerT", "EncodableT"),
        *("ExpiryT", "FieldT", "GroupT", "KeyT", "KeysT", "PatternT", "ScriptTextT", "StreamIdT", "TimeoutSecT", "ZScoreBoundT"),
    ]
)
MODERN = {"Dict": "dict", "List": "list", "Tuple": "tuple", "AnyFieldT": "FieldT", "AnyEncodableT": "EncodableT", "AnyKeyT": "KeyT"}
GENERIC = frozenset(["Iterable", "Sequence", "list"])
CERTAIN_REPLIES = frozenset(["int", "bool", "float"])
SCRIPTS = {"AsyncCommands": "AsyncScript", "SyncCommands": "Script", "AsyncQueuedCommands": "AsyncScript", "SyncQueuedCommands": "Script"}
QUEUED = frozenset(["AsyncQueuedCommands", "SyncQueuedCommands"])


def written_type(node: ast.expr | None) -> str:
    """Write a parameter's type in today's notation, or Any if a name in it is not to be relied on.

    >>> written_type(ast.parse("Optional[List[KeyT]]", mode="eval").body), written_type(ast.parse("Union[int, Secret]", mode="eval").body)
    ('list[KeyT] | None', 'Any')
    """
    match node:
        case ast.Constant(value=None):
            return "None"
        case ast.Constant(value=str(text)):
            return written_type(ast.parse(text, mode="eval").body)
        case ast.Name(id=name):
            name = MODERN.get(name, name)
            if name in GENERIC:
                return f"{name}[Any]"
            return name if name in KNOWN else "Any"
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _union([written_type(inner), "None"])
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=parts)):
            return _union([written_type(part) for part in parts])
        case ast.Subscript(value=ast.Name(id="Literal")):
            return ast.unparse(node)
        case ast.Subscript(value=ast.Name(id="Mapping" | "Dict" | "dict"), slice=ast.Tuple(elts=[_, value])):
            return f"Mapping[Any, {written_type(value)}]"
        case ast.Subscript(value=ast.Name(id=name), slice=inner) if MODERN.get(name, name) in ("list", "Sequence", "Iterable"):
            return f"{MODERN.get(name, name)}[{written_type(inner)}]"
        case ast.BinOp(left=left, right=right):
            return _union([written_type(left), written_type(right)])
    return "Any"


def _union(parts: list[str]) -> str:
    return "Any" if "Any" in parts else " | ".join(dict.fromkeys(parts))


def reply_type(node: ast.expr | None) -> str:
    """Write a reply's type if it is the same in every version and protocol, else Any."""
    names = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)} if node is not None else set()
    certain = names - {"Union", "Awaitable"}
    return certain.pop() if len(certain) == 1 and certain <= CERTAIN_REPLIES and "None" not in ast.unparse(node or ast.Pass()) else "Any"


def parameters(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Write a method's parameters, their defaults as ``...``."""
    given = definition.args
    positional = [*given.posonlyargs, *given.args]
    first_default = len(positional) - len(given.defaults)
    written = ["self"]
    for at, argument in enumerate(positional[1:], 1):
        written.append(f"{argument.arg}: {written_type(argument.annotation)}" + (" = ..." if at >= first_default else ""))
    if given.vararg:
        written.append(f"*{given.vararg.arg}: {written_type(given.vararg.annotation)}")
    elif given.kwonlyargs:
        written.append("*")
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        written.append(f"{argument.arg}: {written_type(argument.annotation)}" + ("" if default is None else " = ..."))
    if given.kwarg:
        written.append(f"**{given.kwarg.arg}: Any")
    return ", ".join(written)


def method(name: str, function: FunctionType, definition: ast.FunctionDef | ast.AsyncFunctionDef, kind: str) -> str:
    """Write one method of one kind of client."""
    reply = reply_type(definition.returns)
    if name == "register_script":
        reply = SCRIPTS[kind]
    elif kind in QUEUED:
        reply = "Any"
    elif inspect.isasyncgenfunction(function):
        reply = "AsyncIterator[Any]"
    elif name.endswith("_iter"):
        reply = "Iterator[Any]"
    elif name in ("json", "ts", "ft", "bf", "cf", "cms", "topk", "tdigest", "vset", "graph"):
        reply = "Any"
    elif kind == "AsyncCommands":
        reply = f"Awaitable[{reply}]"
    return f"    def {name}({parameters(definition)}) -> {reply}: ..."


def definitions(cls: type) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the methods in a class's source; of overloads, the one that is run."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    return {node.name: node for node in ast.iter_child_nodes(body) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def stub(cls: type) -> Iterator[str]:
    """Write the stub of one of the classes."""
    yield f"\nclass {cls.__name__}:"
    yield f'    """{inspect.getdoc(cls)}"""\n'
    written: dict[str, str] = {}
    for owner in cls.__mro__[1:-1]:
        if not owner.__module__.startswith("redis.commands"):
            continue
        found = definitions(owner)
        for name, function in vars(owner).items():
            if name.startswith("_") or name == "execute_command" or not isinstance(function, FunctionType):
                continue
            definition = found.get(name) or found.get(function.__name__)  # redis-py's ``incr`` is another name of its ``incrby``
            if definition is not None:
                written.setdefault(name, method(name, function, definition, cls.__name__))
    yield from (written[name] for name in sorted(written))


CLASSES = (AsyncCommands, SyncCommands, AsyncQueuedCommands, SyncQueuedCommands)

if __name__ == "__main__":
    sys.stdout.write("\n".join([HEADER, *(line for cls in CLASSES for line in stub(cls)), ""]))
