"""The judge of the rules: the server itself, asked where the keys of a command are and whether a confined user may send it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace.rules import CONTAINERS, refusal_of
from tests.namespace.forms import Form

NAMESPACE = "ns"
PREFIX = f"{NAMESPACE}:"
USER = "confined"
BATCH = 500

PATTERNS = frozenset(["BY", "GET"])
Rewrite = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the server said of all forms: the commands that were proven right, and each form that is not."""

    proven: frozenset[str]
    wrong: dict[Form, str] = field(default_factory=dict)


def command_name(form: Sequence[str]) -> str:
    """Return the words that name the command of a form."""
    return f"{form[0]} {form[1]}" if form[0] in CONTAINERS and len(form) > 1 else form[0]


class Oracle:
    """One server's opinion. ``has_dry_run`` is False before Redis 7."""

    def __init__(self, client: "redis.Redis") -> None:
        self.client = client
        entries = _reply(client, "COMMAND")
        self.commands = {entry[0].upper(): entry for entry in entries}
        self.containers = frozenset(name for name, entry in self.commands.items() if len(entry) > 9 and entry[9])
        for entry in entries:
            self.commands |= {sub[0].upper().replace("|", " "): sub for sub in (entry[9] if len(entry) > 9 else [])}
        self.has_dry_run = _answers(client, "ACL", "DRYRUN", "default", "PING")
        rules = ["reset", "resetchannels", "on", "nopass", f"~{PREFIX}*", f"&{PREFIX}*", "+@all"]
        _reply(client, "ACL", "SETUSER", USER, *rules)

    @property
    def keyed_commands(self) -> frozenset[str]:
        """All commands of this server that take keys, by its own account."""
        return frozenset(name for name, entry in self.commands.items() if name not in self.containers and self._is_keyed(entry))

    def _is_keyed(self, entry: list[Any]) -> bool:
        if len(entry) <= 8:
            return bool(entry[3]) or "movablekeys" in entry[2]
        return any("not_key" not in dict(zip(spec[::2], spec[1::2], strict=True))["flags"] for spec in entry[8])

    def _knows(self, form: Form) -> bool:
        names_subcommands = bool(self.containers)
        return (command_name(form) if names_subcommands else form[0]) in self.commands

    def keys_of(self, forms: Sequence[Sequence[Any]]) -> list[list[str] | None]:
        """Ask ``COMMAND GETKEYS`` for each form; [] if it has none, None if the server cannot read the form at all."""
        return [_keys(reply) for reply in self._all(("COMMAND", "GETKEYS", *form) for form in forms)]

    def allowed(self, forms: Sequence[Sequence[Any]]) -> list[bool]:
        """Ask ``ACL DRYRUN`` whether the confined user may send each form."""
        return [reply == "OK" for reply in self._all(("ACL", "DRYRUN", USER, *form) for form in forms)]

    def _all(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        replies: list[Any] = []
        waiting = list(calls)
        for first in range(0, len(waiting), BATCH):
            with self.client.pipeline(transaction=False) as pipe:
                for call in waiting[first : first + BATCH]:
                    pipe.execute_command(call[0].encode(), *call[1:])
                replies += pipe.execute(raise_on_error=False)
        return replies

    def keyed_forms(self, forms: Iterable[Form]) -> dict[Form, list[str]]:
        """Return the forms that this server reads and finds keys in, with those keys; not the ones of refused commands."""
        known = [form for form in dict.fromkeys(forms) if self._knows(form) and refusal_of(command_name(form)) is None]
        return {form: keys for form, keys in zip(known, self.keys_of(known), strict=True) if keys}

    def judge(self, forms: Iterable[Form], rewrite: Rewrite) -> Verdict:
        """Compare what the rules make of each form with what the server says of it."""
        judged = list(self.keyed_forms(forms).items())
        written: list[Sequence[Any] | None] = [_or_none(rewrite, form) for form, _ in judged]
        sent = [form if new is None else new for (form, _), new in zip(judged, written, strict=True)]
        after = self.keys_of(sent)
        old_allowed = self.allowed([form for form, _ in judged]) if self.has_dry_run else [False] * len(judged)
        new_allowed = self.allowed(sent) if self.has_dry_run else [True] * len(judged)
        wrong: dict[Form, str] = {}
        proven: set[str] = set()
        for at, (form, keys) in enumerate(judged):
            fault = _fault(form, written[at], keys, after[at], may_old=old_allowed[at], may_new=new_allowed[at])
            if fault:
                wrong[form] = fault
            else:
                proven.add(command_name(form))
        unproven = {command_name(form) for form in wrong}
        return Verdict(proven=frozenset(proven - unproven), wrong=wrong)


def _fault(form: Form, new: Sequence[Any] | None, keys: list[str], after: list[str] | None, *, may_old: bool, may_new: bool) -> str:
    if new is None:
        return "it was refused"
    if len(new) != len(form):
        return f"it has another number of arguments: {new}"
    if after is None or Counter(after) != Counter(PREFIX + key for key in keys):
        return f"the server found the keys {after} instead of {keys} with the prefix, in {new}"
    sorts = form[0] in ("SORT", "SORT_RO")
    changed = [at for at, (old, now) in enumerate(zip(form, new, strict=True)) if old != now]
    patterns = set(_pattern_places(form)) & set(changed) if sorts else set()
    if any(new[at] != PREFIX + form[at] for at in changed):
        return f"something was changed that is not a prefix: {new}"
    if sorts and set(_pattern_places(form)) - set(changed):
        return f"a pattern of keys was left as it was: {new}"
    if len(changed) - len(patterns) > len(keys):
        return f"more than the keys was changed: {new}"
    if may_old:
        return "the confined user may send it as it was, so the server saw no key in it"
    if not may_new and not (sorts and any(word in PATTERNS for word in form)):
        return f"the confined user may not send {new}"
    return ""


def _pattern_places(form: Form) -> list[int]:
    return [at for at in range(3, len(form)) if form[at - 1] in PATTERNS and (at < 4 or form[at - 2] != "STORE") and "*" in form[at]]


def _or_none(rewrite: Rewrite, form: Form) -> Sequence[Any] | None:
    try:
        return rewrite(form)
    except UnsupportedCommand:
        return None


def _keys(reply: Any) -> list[str] | None:
    if isinstance(reply, list):
        return [str(key) for key in reply]
    return [] if "no key arguments" in str(reply) else None


def _reply(client: "redis.Redis", *call: Any) -> Any:
    return client.execute_command(call[0].encode(), *call[1:])


def _answers(client: "redis.Redis", *call: Any) -> bool:
    try:
        _reply(client, *call)
    except redis.ResponseError:
        return False
    return True


def documentation(client: "redis.Redis") -> dict[str, Any] | None:
    """Ask a server for ``COMMAND DOCS``; None if it has none."""
    try:
        return _as_dict(_reply(client, "COMMAND", "DOCS"))
    except redis.ResponseError:
        return None


def _as_dict(reply: Any) -> dict[str, Any]:
    pairs = list(reply.items()) if isinstance(reply, dict) else list(zip(reply[::2], reply[1::2], strict=True))
    return {name: _read(name, value) for name, value in pairs}


def _read(name: str, value: Any) -> Any:
    if name == "arguments":
        return [_as_dict(argument) for argument in value]
    if name == "subcommands" or (isinstance(value, list) and name not in ("flags", "history", "doc_flags")):
        return _as_dict(value)
    return value
