"""What a user of the server must be allowed, found out by doing it: on keys that are nobody's, or without any effect."""

import secrets
from collections.abc import Sequence
from typing import Any

from async_tracker.calls import call, call_many, refused, text
from async_tracker.errors import StorageError
from async_tracker.integrations.arq.names import ABORT, IN_PROGRESS, JOB, RESULT, RETRY
from async_tracker.namespace import Namespace

# string, hash, set, zset and stream stand for keys of the namespace that are made for the question and deleted after it.
TRACKER_COMMANDS = """
PING
INFO server
TIME
CLIENT ID
CLIENT SETNAME async-tracker-doctor
CLIENT LIST ID 1
EVAL return 0
EVALSHA 0 0
SET string 0 PX 10000
GET string
MGET string
EXISTS string
EXPIRE string 10
PEXPIRE string 10000
HSET hash f 0
HSETNX hash f 0
HGET hash f
HMGET hash f
HGETALL hash
HINCRBY hash f 1
HDEL hash f
SADD set m
SCARD set
SMEMBERS set
SREM set m
ZADD zset 0 m
ZCARD zset
ZSCORE zset m
ZRANGE zset 0 -1
ZREM zset m
XADD stream * f 0
XREAD STREAMS stream 0
XREVRANGE stream + -
DEL string hash set zset stream
"""

# Without effect: no such job is queued.
ARQ_COMMANDS = """
INFO server
TIME
EVAL return 0
EVALSHA 0 0
GET claim
MGET claim
DEL claim payload tries result
EXISTS payload claim
PTTL payload
PEXPIRE payload 1
GET result
SET result 0 XX PX 1
SET payload 0 XX PX 1
ZCARD queue
ZCOUNT queue 0 1
ZRANGE queue 0 0
ZSCORE queue job
ZADD queue XX 0 job
ZREM queue job
ZREM abort job
EXISTS receipt
HMGET receipt payload result
HSET receipt payload 0
PEXPIRE receipt 1
SET receipt 0 XX PX 1
"""

_EVIDENCE = ("CLIENT ID", "CLIENT SETNAME", "CLIENT LIST")
"""Without these deaths are noticed all the same, by the heartbeat, later."""


def tracker_commands(namespaced: Namespace) -> list[list[str | bytes]]:
    """Give the commands that tracking needs, on keys of the namespace that nobody uses."""
    nonce = secrets.token_hex(8)
    names = {name: namespaced.full_key(f"doctor:{nonce}:{name}") for name in ("string", "hash", "set", "zset", "stream")}
    return _commands(TRACKER_COMMANDS, names)


def arq_commands(namespaced: Namespace, queue: str) -> list[list[str | bytes]]:
    """Give the commands that recovery needs in arq's Redis, about a job that does not exist."""
    job_id = f"async-tracker-doctor-{secrets.token_hex(8)}"
    names: dict[str, str | bytes] = {"claim": IN_PROGRESS + job_id, "payload": JOB + job_id, "tries": RETRY + job_id}
    names |= {"result": RESULT + job_id, "queue": queue, "abort": ABORT, "job": job_id}
    return _commands(ARQ_COMMANDS, {**names, "receipt": namespaced.full_key(f"receipt:{job_id}")})


def _commands(table: str, names: dict[str, Any]) -> list[list[str | bytes]]:
    commands: list[list[str | bytes]] = []
    for line in table.strip().splitlines():
        verb, *rest = line.split(" ")
        if verb == "EVAL":
            commands.append([verb, " ".join(rest), "0"])
        else:
            commands.append([verb, *(names.get(word, word) for word in rest)])
    return commands


def named(command: Sequence[str | bytes]) -> str:
    """Name a command as an ACL rule does, without the plus: ``CLIENT LIST`` and not its arguments."""
    words = [text(word) for word in command]
    return " ".join(words[:2]) if words[0] == "CLIENT" else words[0]


async def refusals(client: Any, commands: Sequence[Sequence[str | bytes]]) -> dict[str, str]:
    """Run the commands and tell which the server refuses, with its reason. What it does not know without permission is no refusal."""
    replies = await call_many(client, commands)
    found: dict[str, str] = {}
    for command, reply in zip(commands, replies, strict=True):
        if refused(reply) and "NOSCRIPT" not in str(reply) and "No matching script" not in str(reply):
            found.setdefault(named(command), str(reply))
    return found


async def refusals_of(client: Any, user: str, commands: Sequence[Sequence[str | bytes]]) -> dict[str, str]:
    """Tell which commands another user would be refused. Raises StorageError where the server cannot say, or not to us."""
    replies = await call_many(client, [("ACL", "DRYRUN", user, *command) for command in commands])
    found: dict[str, str] = {}
    for command, reply in zip(commands, replies, strict=True):
        if refused(reply):
            raise StorageError(f"Redis does not tell what user {user!r} may do: {reply}")
        if text(reply) != "OK":
            found.setdefault(named(command), text(reply))
    return found


def only_evidence(refused_commands: dict[str, str]) -> bool:
    """Tell whether tracking works all the same, with later news of deaths.

    >>> only_evidence({"CLIENT LIST": "no"}), only_evidence({"CLIENT LIST": "no", "XADD": "no"})
    (True, False)
    """
    return set(refused_commands) <= set(_EVIDENCE)


def grants(refused_commands: dict[str, str]) -> str:
    """Write the ACL rules that would allow what was refused.

    >>> grants({"CLIENT LIST": "no", "XADD": "no"})
    '+client|list +xadd'
    """
    return " ".join("+" + name.lower().replace(" ", "|") for name in refused_commands)


async def own_name(client: Any) -> str | None:
    """Give the name of the user that we are; None where the server does not tell."""
    try:
        return text(await call(client, "ACL", "WHOAMI"))
    except StorageError:
        return None
