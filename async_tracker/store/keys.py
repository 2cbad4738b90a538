"""The names of all keys, without the namespace: the Namespace proxy puts ``{namespace}:`` in front.

The page that says what each of them holds, who writes it and how long it lives is docs/redis-schema.md.
"""

INSTANCES = "instances"
"""zset: instance id -> last heartbeat, in ms of the server's clock. The index of everything."""

DEAD = "dead"
"""zset: instance id -> when it was declared dead, in ms. Here until its last orphan is recovered."""

CONNECTIONS = "connections"
"""hash: instance id -> JSON, the connections that it has registered and on which server."""

HOSTS = "hosts"
"""zset with a lifetime: host id, a space, instance id; all scores are 0. Which instances are on one host, in the order of the hosts."""

CHANGED = "changed"
"""zset with a lifetime: instance id -> when it last registered, changed its connections or left, in ms; those of the last minute."""

GONE = "gone"
"""hash: instance id -> since when all its registered connections are gone from the server."""

WATCHDOGS = "watchdogs"
"""zset: instance id -> when its watchdog last spoke, in ms; only while its loop is blocked."""

STANDING = "standing"
"""hash with a lifetime: scope -> a standing order; who registers in that scope begins with it."""

SERVER = "server"
"""hash: the run id of the server and since when it is this one."""

EVENTS = "events"
"""stream, capped: what happened, for everyone who follows it."""

QUARANTINE = "quarantine"
"""zset: quarantined job id -> when, in ms."""

QUEUES = "queues"
"""zset with a lifetime: what queues instances of a library work on, as JSON -> when an instance or a sweep last said so, in ms. A member ''
says since when nothing is missing."""

STATS = "stats"
"""hash: counters of all time (30 days after the last write they go)."""


MINUTES = "minutes"
"""zset: the minutes, as numbers since 1970, whose counters are not packed yet."""

HOURS = "hours"
"""zset: the hours, as numbers since 1970, of which there are minutes or samples and that are not rolled up yet."""

VERSIONS = "versions"
"""zset: version that users give their deploys -> when it was last seen in the fleet, in ms."""

DEPLOYS = "deploys"
"""zset: when a version was deployed in ms, a colon and the version -> that time."""

SERIES = "series"
"""zset: function and queue, as JSON -> the last minute in which they counted."""


def minute(number: int) -> str:
    """hash: what was counted in one minute, by counter, function and queue. Packed, and gone, soon after the minute is over."""
    return f"minute:{number}"


def packed(span: str) -> str:
    """string: the minutes of one hour, or the hours of one day, of one function on one queue, packed.

    ``span`` is the hour as a number since 1970, or ``d`` and the day, then the function and the queue.
    """
    return f"packed:{span}"


def total(pair: str) -> str:
    """hash: how long the runs of one function on one queue took and waited, of all time, in a few buckets. ``pair`` is JSON."""
    return f"total:{pair}"


def samples(span: str) -> str:
    """hash -> JSON, how the fleet and its queues stood: of an hour by minute and library, of a day by hour. ``span`` is as above."""
    return f"samples:{span}"


def instance(instance_id: str) -> str:
    """hash: what one instance says of itself."""
    return f"instance:{instance_id}"


def functions(digest: str) -> str:
    """string with a lifetime, JSON: a long list of functions, once for all instances that have the same; ``digest`` is of this text."""
    return f"functions:{digest}"


def jobs(instance_id: str) -> str:
    """set: ids of the jobs in flight on one instance."""
    return f"jobs:{instance_id}"


def job(job_id: str) -> str:
    """string, JSON: the record of the newest run in flight of a job."""
    return f"job:{job_id}"


def orphans(instance_id: str) -> str:
    """hash: job ref -> JSON, the orphans of one dead instance as they were found; gone when each of them is settled."""
    return f"orphans:{instance_id}"


def settled(instance_id: str) -> str:
    """hash: run -> when it was settled, of one dead instance. A sweeper that comes late leaves alone what stands here."""
    return f"settled:{instance_id}"


def told(instance_id: str) -> str:
    """set: refs of the orphans of one dead instance that were announced before they were recovered; they are not announced again."""
    return f"told:{instance_id}"


def counters(instance_id: str) -> str:
    """hash: the totals that one instance of an older version has reported so far; this version does not write it."""
    return f"counters:{instance_id}"


def answer(order_id: str) -> str:
    """string with a lifetime, JSON: what came of an order to an instance. The first answer stands."""
    return f"answer:{order_id}"


def tombstone(instance_id: str) -> str:
    """string with a lifetime: this instance was declared dead; its id is never used again."""
    return f"tombstone:{instance_id}"


def lease(library: str) -> str:
    """string with a lifetime: who sweeps for the workers of one library."""
    return f"lease:sweep:{library}"


def recoveries(job_id: str) -> str:
    """hash with a lifetime: run token -> when that run was recovered, in ms. Their number is what quarantine counts."""
    return f"recoveries:{job_id}"


def quarantined(job_id: str) -> str:
    """hash: one quarantined job, its payload included, as opaque bytes."""
    return f"quarantined:{job_id}"


def receipt(claim: str) -> str:
    """string or hash with a lifetime, in the worker library's Redis: what became of one orphan, so that nothing is done to it twice."""
    return f"receipt:{claim}"


def abort(claim: str) -> str:
    """string with a lifetime, in the worker library's Redis: this run is being aborted. A sweep that finds it orphaned ends its job."""
    return f"receipt:abort:{claim}"


def kept(job_id: str) -> str:
    """hash with a lifetime, in arq's Redis: claim -> when its try was given back to its job, in ms. Their number is what bounds that."""
    return f"receipt:kept:{job_id}"


def marks(instance_id: str) -> str:
    """hash with a lifetime, in dramatiq's Redis: thread -> id of the message that it has begun last, and a sign that all are marked."""
    return f"marks:{instance_id}"
