"""What becomes of a command in a namespace: rewritten, passed or refused. Pure: no client, no connection.

``Rules`` is what both proxies share. A command is looked up by its first argument exactly as it was written; the first call of each
spelling finds its shape, every later one costs one look-up.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace.naming import Naming, word
from async_tracker.namespace.refusals import REFUSED, REFUSED_FAMILIES
from async_tracker.namespace.replies import REPLIES
from async_tracker.namespace.shapes import Rewrite, check_shape, rewrite_for
from async_tracker.namespace.table import COMMANDS_BY_SHAPE

StripReply = Callable[[Any], Any]
Plan = tuple[Rewrite, StripReply | None]

SPELLINGS_KEPT = 4_000
"""So many spellings are remembered; a program that writes commands in ever new ways is served, only slower."""

SHAPES: dict[str, str] = {name: shape for shape, names in COMMANDS_BY_SHAPE.items() for name in names}
CONTAINERS: set[str] = {name.partition(" ")[0] for name in (*SHAPES, *REFUSED) if " " in name}


def register(command: str, keys: str) -> None:
    """Say where the keys of a command are that the table does not have, for all namespaces of this process.

    ``keys`` is a shape: ``"1"`` one key after the command, ``"1:"`` all arguments, ``"1::2"`` every second, ``"#2"`` their number at
    2 and then the keys, ``"-"`` none. Raises ConfigError if it is no shape, UnsupportedCommand for a command that is refused or that the
    table has otherwise.
    """
    name = " ".join(command.upper().split())
    reason = reason_to_refuse(name)
    if reason is not None:
        raise UnsupportedCommand(f"{name} cannot be registered: {reason}")
    if SHAPES.get(name, keys) != keys:
        raise UnsupportedCommand(f"{name} is in the table already, with its keys at {SHAPES[name]!r}")
    SHAPES[name] = check_shape(keys)
    if " " in name:
        CONTAINERS.add(name.partition(" ")[0])


def reason_to_refuse(name: str) -> str | None:
    """Tell why a known command (in capitals) cannot be confined, or None if it can, or is not known.

    >>> reason_to_refuse("GET") is None, reason_to_refuse("FLUSHDB")
    (True, "it would delete everybody's keys; clear() deletes those of the namespace")
    """
    if name in SHAPES:
        return None
    for known in (name, name.partition(" ")[0]):
        if known in REFUSED:
            return REFUSED[known]
    return next((reason for family, reason in REFUSED_FAMILIES.items() if name.startswith(family)), None)


def refusal_of(name: str) -> str | None:
    """Tell why a command (in capitals) is refused, or None if it is not: what is not known is refused as well."""
    if name in SHAPES:
        return None
    return reason_to_refuse(name) or (
        "it is in no table, so it is not known where its keys are; say so by "
        f'Namespace.register("{name}", "1"), where "1" is the place of its only key ("-": no keys)'
    )


class Plans(dict[Any, tuple[Rewrite | None, Any]]):
    """From the first argument, as it was written, to what is done with the command."""

    def __init__(self, find: Callable[[Any], tuple[Rewrite | None, Any]]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, first: Any) -> tuple[Rewrite | None, Any]:
        plan = self._find(first)
        if len(self) < SPELLINGS_KEPT:
            self[first] = plan
        return plan


class Rules:
    """The rules of one namespace. ``allowed`` are refused commands that pass as they are, by the caller's own decision."""

    __slots__ = ("allowed", "names", "plans", "subplans")

    def __init__(self, names: Naming, allowed: Collection[str] = ()) -> None:
        self.names = names
        self.allowed = frozenset(name.upper() for name in allowed)
        self.plans = Plans(self._find)
        self.subplans: dict[tuple[str, int], Plan] = {}

    def prepare(self, args: tuple[Any, ...]) -> tuple[Sequence[Any], StripReply | None]:
        """Return the arguments to send and what the reply is to go through (None: nothing). Raises UnsupportedCommand."""
        rewrite, strip = self.plans[args[0]]
        if rewrite is None:
            rewrite, strip = strip(args)
        return rewrite(args), strip

    def rewritten_keys(self, keys: Any) -> Any:
        """Write the ``keys`` option of redis-py (the key of its client-side cache) as the server will name them."""
        if isinstance(keys, (str, bytes)):
            return self.names.add(keys)
        return [self.names.add(key) for key in keys]

    def _find(self, first: Any) -> tuple[Rewrite | None, Any]:
        words = word(first).decode("latin-1").split()
        name = " ".join(words)
        if not words:
            raise UnsupportedCommand(f"{first!r} is no command")
        if len(words) == 1:
            return (None, self._choose) if name in CONTAINERS else self._plan(name, 0)
        if len(words) == 2 and (name in SHAPES or name in self.allowed or words[0] in CONTAINERS):
            return self._plan(name, 1)
        return None, self._spelled_out

    def _choose(self, args: tuple[Any, ...]) -> Plan:
        """Find the plan of a command whose second argument says what it does."""
        container = word(args[0]).decode("latin-1")
        if len(args) == 1:
            return self._plan(container, 0) if container in SHAPES else (tuple, None)
        return self._plan(f"{container} {word(args[1]).decode('latin-1')}", 0)

    def _spelled_out(self, args: tuple[Any, ...]) -> Plan:
        """Find the plan of ``execute_command("SET k v")``: redis-py cuts the text at its blanks, so the rules do it first."""
        words = args[0].split()

        def rewrite(args: tuple[Any, ...]) -> Sequence[Any]:
            first = words[0].encode() if isinstance(words[0], str) else words[0]
            return self.prepare((first, *words[1:], *args[1:]))[0]

        _, strip = self.prepare((*words, *args[1:]))
        return rewrite, strip

    def _plan(self, name: str, shift: int) -> Plan:
        plan = self.subplans.get((name, shift))
        if plan is None:
            plan = self.subplans[name, shift] = self._make(name, shift)
        return plan

    def _make(self, name: str, shift: int) -> Plan:
        if name in self.allowed:
            return rewrite_for("-", self.names), None
        refusal = refusal_of(name)
        if refusal is not None:
            raise UnsupportedCommand(f"{name} is refused by the namespace {self.names.namespace!r}, and nothing was sent: {refusal}")
        strip, names = REPLIES.get(name), self.names
        return rewrite_for(SHAPES[name], names, shift=shift), None if strip is None else lambda reply: strip(reply, names)
