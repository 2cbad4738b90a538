"""What a user must be allowed in arq's Redis so that arq's jobs can be recovered, asked about a job that does not exist."""

import secrets
from collections.abc import Callable, Sequence

from async_tracker.integrations.arq.names import ABORT, DEFAULT_QUEUE, IN_PROGRESS, JOB, RESULT, RETRY
from async_tracker.integrations.rights import Rights, commands_of
from async_tracker.store import keys
from async_tracker.store.instance_record import Description

# Without effect: no such job is queued.
RECOVERING = """
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
ZSCAN queue 0
ZSCORE queue job
ZADD queue XX 0 job
ZREM queue job
ZREM abort job
EXISTS receipt
TYPE receipt
HGET receipt retried
HMGET receipt payload result
HSET receipt payload 0
HGETALL receipt
HDEL receipt payload
PEXPIRE receipt 1
SET receipt 0 XX PX 1
INCRBY receipt 1
DEL receipt
"""


def rights(described: Sequence[Description], *, queue: str | None, full_key: Callable[[str], bytes]) -> Rights:
    """Give what recovery needs for the queue of one of these workers, where there is none for the one that is named, else for arq's own.

    A user may be allowed only the queues that its workers use. A worker tells those of arq in ``queues`` where its ``queue`` is
    only what people call it.
    """
    own_queue = next((name for item in described for name in (*item.queues, item.queue) if name), queue or DEFAULT_QUEUE)
    job_id = f"async-tracker-doctor-{secrets.token_hex(8)}"
    names: dict[str, str | bytes] = {"claim": IN_PROGRESS + job_id, "payload": JOB + job_id, "tries": RETRY + job_id}
    names |= {"result": RESULT + job_id, "queue": own_queue, "abort": ABORT, "job": job_id, "receipt": full_key(keys.receipt(job_id))}
    return Rights(keys="arq:*", commands=tuple(commands_of(RECOVERING, names)))
