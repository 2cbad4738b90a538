"""What a user of the server must be allowed. The commands are run to find out, on keys that nothing else uses, or without effect."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from async_tracker.connections.calls import call, call_many, refused
from async_tracker.connections.replies import text
from async_tracker.doctor.findings import Finding, Status
from async_tracker.errors import StorageError
from async_tracker.integrations.rights import Command, Rights, commands_of
from async_tracker.namespace import Namespace
from async_tracker.queries.wording import duration

# string, hash, set, zset and stream stand for keys of the namespace that nothing else uses. First the commands that read.
ASKING = """
PING
INFO server
TIME
EVAL return 0
EVALSHA 0 0
CLIENT LIST ID 1
CLIENT TRACKING OFF
GET string
MGET string
HGET hash f
HMGET hash f
HGETALL hash
SCARD set
SMEMBERS set
ZCARD zset
ZSCORE zset m
ZRANGE zset 0 -1
XREAD STREAMS stream 0
XREVRANGE stream + -
XLEN stream
"""

# The last line deletes what the others write.
WORKING = """
CLIENT ID
CLIENT SETNAME async-tracker-doctor
SET string 0 PX 10000
EXISTS string
EXPIRE string 10
PEXPIRE string 10000
HSET hash f 0
HSETNX hash f 0
HINCRBY hash f 1
HLEN hash
HSCAN hash 0
HDEL hash f
SADD set m
SREM set m
ZADD zset 0 m
ZREM zset m
UNLINK zset
XADD stream * f 0
XTRIM stream MINID 0
DEL string hash set zset stream
"""

_EVIDENCE = {"CLIENT ID", "CLIENT SETNAME", "CLIENT LIST"}
"""Without these the tracker notices deaths later, by the heartbeat."""
_FOLLOWING = {"XREAD", "XREVRANGE", "XLEN"}
"""Only programs that read events need these."""
_SPARING = {"CLIENT TRACKING", "HLEN", "XTRIM"}
"""Without these the tracker does the same, at a higher cost to the server: in time, or in memory for old events and unbounded totals."""


def tracker_commands(namespaced: Namespace) -> tuple[list[Command], list[Command]]:
    """Give the commands that questions need, and those that a worker needs in addition, on keys of the namespace that nothing else uses."""
    nonce = secrets.token_hex(8)
    names: dict[str, str | bytes] = {
        name: namespaced.full_key(f"doctor:{nonce}:{name}") for name in ("string", "hash", "set", "zset", "stream")
    }
    return commands_of(ASKING, names), commands_of(WORKING, names)


def named(command: Sequence[str | bytes]) -> str:
    """Name a command as an ACL rule does, without the plus sign: ``CLIENT LIST``, without its arguments."""
    words = [text(word) for word in command]
    return " ".join(words[:2]) if words[0] == "CLIENT" else words[0]


async def refusals(client: Any, commands: Sequence[Command], *, user: str | None) -> dict[str, str]:
    """Tell which commands the server refuses, each with the reason: by running them, or by ``ACL DRYRUN`` for another ``user``.

    Raises StorageError when the server does not know ``ACL DRYRUN`` or refuses it.
    """
    asked: list[Command] = list(commands) if user is None else [["ACL", "DRYRUN", user, *command] for command in commands]
    found: dict[str, str] = {}
    for command, reply in zip(commands, await call_many(client, asked), strict=True):
        if user is None and refused(reply) and "matching script" not in str(reply):
            found.setdefault(named(command), str(reply))
        elif user is not None and refused(reply):
            raise StorageError(f"Redis does not say what user {user!r} may do: {reply}")
        elif user is not None and text(reply) != "OK":
            found.setdefault(named(command), text(reply))
    return found


def judged(
    subject: str, asking: Mapping[str, str], working: Mapping[str, str], *, namespace: str, heartbeat_ttl: float, writes: int
) -> Finding:
    """Judge what a user is refused; ``writes`` is how many commands a worker needs in addition to those of a question.

    >>> def status(asking, working):
    ...     return str(judged("user", asking, working, namespace="n", heartbeat_ttl=15.0, writes=2).status)
    >>> no = "no permission"
    >>> status({}, {}), status({"CLIENT LIST": no}, {}), status({"GET": no}, {}), status({}, {"CLIENT TRACKING": no, "XTRIM": no})
    ('ok', 'warning', 'problem', 'ok')
    >>> status({}, {"SET": no}), status({}, {"SET": no, "DEL": no})
    ('problem', 'warning')
    """
    every = {**asking, **working}
    says = f"may not: {', '.join(every)} ({next(iter(every.values()), '')})"
    if any("permission" not in reason.lower() for reason in every.values()):
        says = f"the server refuses {', '.join(every)} ({next(iter(every.values()))})"
        return Finding(subject=subject, status=Status.PROBLEM, says=says, remedy="repair the server: this is not about permissions")
    if not every:
        return Finding(subject=subject, status=Status.OK, says="may do everything that tracking needs")
    if set(every) <= _FOLLOWING:
        return Finding(subject=subject, status=Status.OK, says=f"may do everything that tracking needs; to read events: {grants(every)}")
    if set(every) <= _SPARING:
        return Finding(
            subject=subject,
            status=Status.OK,
            says=f"may do everything that tracking needs; to spare the server: {grants(every)}",
        )
    if set(every) <= _EVIDENCE | _SPARING:
        remedy = f"deaths are noticed only once a heartbeat is {duration(heartbeat_ttl)} old; to notice them at once: {grants(every)}"
        return Finding(subject=subject, status=Status.WARNING, says=says, remedy=remedy)
    if len(working) == writes and set(asking) <= _EVIDENCE | _SPARING:
        remedy = "this is enough for questions; workers and async-tracker recover need a user that may write"
        return Finding(subject=subject, status=Status.WARNING, says="may read, and may not write", remedy=remedy)
    return Finding(subject=subject, status=Status.PROBLEM, says=says, remedy=f"ACL SETUSER ... ~{namespace}:* {grants(every)}")


def judged_for_recovery(subject: str, rights: Rights, refused_commands: Mapping[str, str]) -> Finding:
    """Judge which rights that recovery needs in a worker library's Redis a user is refused.

    >>> rights = Rights(keys="arq:*", commands=(["DEL", "k"],))
    >>> judged_for_recovery("user", rights, {"DEL": "no permission"}).remedy
    'to recover and to see how full queues are: ACL SETUSER ... ~arq:* +del'
    """
    if not refused_commands:
        return Finding(subject=subject, status=Status.OK, says="may do everything that recovery needs")
    says = f"may not: {', '.join(refused_commands)} ({next(iter(refused_commands.values()))})"
    remedy = f"to recover and to see how full queues are: ACL SETUSER ... ~{rights.keys} {grants(refused_commands)}"
    return Finding(subject=subject, status=Status.PROBLEM, says=says, remedy=remedy)


def grants(refused_commands: Mapping[str, str]) -> str:
    """Write the ACL rules that would allow what was refused.

    >>> grants({"CLIENT LIST": "no", "XADD": "no"})
    '+client|list +xadd'
    """
    return " ".join("+" + name.lower().replace(" ", "|") for name in refused_commands)


async def own_name(client: Any) -> str:
    """Give the name of our own user; where the server refuses to tell, the one that the connection was made with."""
    try:
        return text(await call(client, "ACL", "WHOAMI"))
    except StorageError:
        return str(client.connection_pool.connection_kwargs.get("username") or "default")
