"""The decisions, as pure functions: who is dead, how long to wait, when a job is a poison pill.

Values in, value out. Nothing here waits, reads a clock or talks to Redis; the rows of `judge` are the contract of the
failure detector, in the order in which they are tried.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

NO_LIBRARY = "asyncio"
"""What stands for the worker library where there is none: workers of `Tracker.register`, and their jobs."""


class InstanceState(StrEnum):
    """What is known of an instance."""

    ALIVE = "alive"
    QUIET = "quiet"
    """A person has told it to take no more jobs; it beats, sweeps and recovers as ever, and runs what it has."""
    DRAINING = "draining"
    """Shutdown has begun; it beats until its last job has ended."""
    STALLED_BLOCKED = "stalled_blocked"
    """The process is alive and its event loop is blocked: the watchdog reports."""
    STALLED_SILENT = "stalled_silent"
    """A stopped process or a lost host: its connection is open, and neither its loop nor its watchdog reports."""
    RETURNING = "returning"
    """Redis is another server since a moment ago, by a restart or a failover, and it has not come back there yet."""
    DEAD = "dead"


STALLED = (InstanceState.STALLED_BLOCKED, InstanceState.STALLED_SILENT)
"""The states in which an instance does not run its event loop, and is not taken for dead."""


def takes_jobs(state: str) -> bool:
    """Tell whether an instance in this state is a worker of its queues, and its slots are capacity.

    A loop that is blocked comes back; an instance that drains, is quiet or silent takes no jobs.

    >>> [state.value for state in InstanceState if takes_jobs(state)], takes_jobs("quiet")
    (['alive', 'stalled_blocked'], False)
    """
    return state in (InstanceState.ALIVE, InstanceState.STALLED_BLOCKED)


class Connection(StrEnum):
    """What the server says of the connections that an instance has registered."""

    OPEN = "open"
    GONE = "gone"
    UNKNOWN = "unknown"
    """An old server, no permission, a multiplexing proxy, or registered before a failover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings by which one instance is judged: its own. All in seconds."""

    heartbeat_ttl: float = 15.0
    disconnect_grace: float = 1.0
    silence_limit: float = 60.0
    stall_limit: float | None = None


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a verdict rests on. Ages are seconds on the server's clock; None means never."""

    heartbeat_age: float
    connection: Connection = Connection.UNKNOWN
    gone_for: float = 0.0
    """Since all registered connections were first seen gone; means something only while ``connection`` is gone."""
    watchdog_age: float | None = None
    host_seen: bool = False
    """Another instance of that host beats, so the host is there."""
    server_age: float | None = None
    """Since the server was found to be another one (restart, failover, moved slot); None: it is the first."""
    has_returned: bool = False
    """It has come to the present server; means something only where ``server_age`` is known."""
    absence_age: float | None = None
    """Since the judging process itself was back after an absence; None: it was not away."""
    draining: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A state and the reason for it, in words."""

    state: InstanceState
    reason: str
    is_blameless: bool = False
    """Dead with a change of the server, which is no fault of the jobs."""


HOST_SEEN_FACTOR = 10
"""A silent process is given this many times ``silence_limit`` where another instance proves that its host is there."""


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """Tell what state an instance is in; the first row that matches wins.

    Killed: the server has dropped its connections, and nothing was registered anew.

    >>> limits = Limits()
    >>> judge(Evidence(heartbeat_age=0.5, connection=Connection.GONE, gone_for=1.0), limits).state
    <InstanceState.DEAD: 'dead'>

    Merely slow: the heartbeat is old, and the watchdog reports.

    >>> judge(Evidence(heartbeat_age=600.0, connection=Connection.OPEN, watchdog_age=4.0), limits).state
    <InstanceState.STALLED_BLOCKED: 'stalled_blocked'>

    Stopped, or its host is lost: silence does not last for ever.

    >>> judge(Evidence(heartbeat_age=59.9, connection=Connection.OPEN), limits).state
    <InstanceState.STALLED_SILENT: 'stalled_silent'>
    >>> judge(Evidence(heartbeat_age=60.0, connection=Connection.OPEN), limits).state
    <InstanceState.DEAD: 'dead'>
    >>> judge(Evidence(heartbeat_age=60.0, connection=Connection.OPEN, host_seen=True), limits).state
    <InstanceState.STALLED_SILENT: 'stalled_silent'>

    After a restart of the server no instance is dead before it had time to come back. One that has is judged as ever.

    >>> judge(Evidence(heartbeat_age=900.0, connection=Connection.UNKNOWN, server_age=9.0), limits).state
    <InstanceState.RETURNING: 'returning'>
    >>> judge(Evidence(heartbeat_age=0.5, connection=Connection.OPEN, server_age=9.0, has_returned=True), limits).state
    <InstanceState.ALIVE: 'alive'>
    """
    verdict = _judged(evidence, limits)
    return replace(verdict, is_blameless=is_blameless(evidence, limits)) if verdict.state is InstanceState.DEAD else verdict


def is_blameless(evidence: Evidence, limits: Limits) -> bool:
    """Tell whether a death counts against no job: of an instance that did not outlive a change of the server, or not for long.

    >>> limits = Limits()
    >>> is_blameless(Evidence(heartbeat_age=99.0, server_age=20.0), limits), is_blameless(Evidence(heartbeat_age=99.0), limits)
    (True, False)
    >>> [is_blameless(Evidence(heartbeat_age=2.0, server_age=age, has_returned=True), limits) for age in (14.9, 15.0)]
    [True, False]
    """
    return evidence.server_age is not None and (not evidence.has_returned or evidence.server_age < limits.heartbeat_ttl)


def _judged(evidence: Evidence, limits: Limits) -> Verdict:
    if evidence.absence_age is not None and evidence.absence_age < limits.heartbeat_ttl:
        return _live(evidence, f"Redis was out of reach from here until {evidence.absence_age:.1f} s ago; waiting for heartbeats")
    if evidence.server_age is not None and evidence.server_age < limits.heartbeat_ttl and not evidence.has_returned:
        reason = f"Redis restarted or failed over {evidence.server_age:.1f} s ago, and it has not come back yet"
        return Verdict(state=InstanceState.RETURNING, reason=reason)
    if _disconnected(evidence, limits):
        return Verdict(state=InstanceState.DEAD, reason=f"its connection to Redis has been closed for {evidence.gone_for:.1f} s")
    if evidence.heartbeat_age < limits.heartbeat_ttl:
        return _live(evidence, f"heartbeat {max(evidence.heartbeat_age, 0.0):.1f} s ago")
    if evidence.watchdog_age is not None and evidence.watchdog_age < limits.heartbeat_ttl:
        return _blocked(evidence, limits)
    return _silent(evidence, limits)


def _live(evidence: Evidence, reason: str) -> Verdict:
    if evidence.draining:
        return Verdict(state=InstanceState.DRAINING, reason=reason)
    return Verdict(state=InstanceState.QUIET if evidence.quiet else InstanceState.ALIVE, reason=reason)


def _disconnected(evidence: Evidence, limits: Limits) -> bool:
    if evidence.connection is not Connection.GONE or evidence.gone_for < limits.disconnect_grace:
        return False
    # A report of the watchdog from after the connections were gone proves that the process outlived them.
    return evidence.watchdog_age is None or evidence.watchdog_age >= evidence.gone_for


def _blocked(evidence: Evidence, limits: Limits) -> Verdict:
    age = evidence.heartbeat_age
    if limits.stall_limit is not None and age >= limits.stall_limit:
        return Verdict(
            state=InstanceState.DEAD,
            reason=f"its event loop has been blocked for {age:.1f} s, longer than stall_limit ({limits.stall_limit:g} s)",
        )
    return Verdict(
        state=InstanceState.STALLED_BLOCKED,
        reason=f"its event loop has been blocked for {age:.1f} s; the process is alive, its watchdog thread reports",
    )


def _silent(evidence: Evidence, limits: Limits) -> Verdict:
    age = evidence.heartbeat_age
    if evidence.connection is Connection.UNKNOWN and evidence.server_age is not None and not evidence.has_returned:
        return Verdict(
            state=InstanceState.DEAD, reason=f"it has not come back since Redis restarted or failed over {evidence.server_age:.1f} s ago"
        )
    if evidence.connection is Connection.UNKNOWN:
        return Verdict(
            state=InstanceState.DEAD, reason=f"no heartbeat for {age:.1f} s, and Redis does not tell whether its connection is open"
        )
    if evidence.connection is Connection.GONE and evidence.gone_for >= limits.disconnect_grace:
        return Verdict(
            state=InstanceState.DEAD,
            reason=f"no heartbeat for {age:.1f} s, its connection to Redis is closed and its watchdog thread reports no longer",
        )
    limit = limits.silence_limit * (HOST_SEEN_FACTOR if evidence.host_seen else 1)
    if limits.stall_limit is not None:  # a process that reports nothing is not given longer than one that reports to be blocked
        limit = min(limit, limits.stall_limit)
    if age >= limit:
        return Verdict(state=InstanceState.DEAD, reason=f"no heartbeat for {age:.1f} s, longer than the limit of {limit:g} s")
    if evidence.connection is Connection.GONE:
        return Verdict(state=InstanceState.STALLED_SILENT, reason=f"no heartbeat for {age:.1f} s; its connection to Redis has just closed")
    return Verdict(
        state=InstanceState.STALLED_SILENT,
        reason=f"no heartbeat for {age:.1f} s, and its connection is open: the process is stopped or its host is lost",
    )


FIRST_DELAY = 5.0
"""Seconds before a job that died a second time may run again; each further death doubles it."""
LONGEST_DELAY = 300.0


def recovery_delay(deaths: int, *, jitter: float) -> float:
    """Tell how many seconds a job must wait that has died with its worker this many times; the first is free.

    ``jitter`` is a random number in [0, 1): jobs that died together come back apart, so that a poison pill is soon alone.

    >>> recovery_delay(1, jitter=0.9), recovery_delay(2, jitter=0.0), recovery_delay(3, jitter=0.0), recovery_delay(3, jitter=0.5)
    (0.0, 5.0, 10.0, 15.0)
    >>> recovery_delay(60, jitter=0.0)
    300.0
    """
    if deaths <= 1:
        return 0.0
    delay: float = min(FIRST_DELAY * 2.0 ** min(deaths - 2, 30), LONGEST_DELAY)
    return delay * (1.0 + jitter)


def is_poison(deaths: int, *, max_recoveries: int, suspects: int = 1) -> bool:
    """Tell whether a job has killed its worker once too often; ``deaths`` includes the present one.

    ``suspects``: how many jobs died with it now, itself included, and have died at least as often as it has. Where there are others,
    any of them may be the pill: all are run again, so that they may die apart, until twice as many deaths.

    >>> is_poison(3, max_recoveries=3), is_poison(4, max_recoveries=3)
    (False, True)
    >>> is_poison(4, max_recoveries=3, suspects=2), is_poison(7, max_recoveries=3, suspects=2)
    (False, True)
    """
    return deaths > max_recoveries and (suspects <= 1 or deaths > 2 * max_recoveries)


def apart(position: int, among: int, *, jitter: float) -> float:
    """Turn a random number in [0, 1) into one for the job at this position (from 0) among the jobs that died together.

    They come back one after the other, evenly and at least half a step apart, so that fewer of them die together again.

    >>> [apart(position, 2, jitter=0.5) for position in range(2)]
    [0.125, 0.625]
    """
    return (position + jitter / 2.0) / among


def standby_interval(sweep_interval: float, instances: int) -> float:
    """Tell every how many seconds one of many instances should check whether the sweeper is still there.

    Eight checks per ``sweep_interval`` for the whole fleet are enough, at any size: so the cost does not grow with the fleet. Where it
    shrinks, each plans anew at its next beat, which tells it how many there are.

    >>> standby_interval(0.5, 3), standby_interval(0.5, 80), standby_interval(0.5, 1_000)
    (0.5, 5.0, 62.5)
    """
    return max(sweep_interval, sweep_interval * instances / 8.0)


def absence_from(heartbeat_ttl: float, heartbeat_interval: float) -> float:
    """Tell from how many seconds without an answer of the server on a process takes itself to have been out of reach.

    Whatever that was (a host that slept, a server that did not answer or whose clock was set forward), the heartbeats of others are as
    much older, beside the interval that they were old before: those of instances that live may be past their time to live.

    >>> absence_from(15.0, 5.0), absence_from(10.0, 5.0)
    (10.0, 7.5)
    """
    return max(heartbeat_ttl - heartbeat_interval, 1.5 * heartbeat_interval)


def next_beat(heartbeat_interval: float, *, jitter: float) -> float:
    """Tell how many seconds to wait for the next beat: never later than the interval, up to a tenth earlier.

    >>> next_beat(5.0, jitter=0.0), next_beat(5.0, jitter=1.0)
    (5.0, 4.5)
    """
    return heartbeat_interval * (1.0 - 0.1 * jitter)


QUIET_SECONDS = 1.0
"""A process that has neither started a run nor written one for this long is quiet: its next write may be a hasty one."""
HASTY_A_SECOND = 5.0
"""How many runs of a second try are written at once, as a mean; as many may come together."""
ENDS_WAIT_GATHERS = 4
"""How many times ``gather`` the end of a written run waits for a start with which it can be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ration:
    """By what writes are rationed, in seconds: by time, and not by job."""

    linger: float = 0.002
    gather: float = 0.05
    durable: bool = False
    """Jobs wait for the write of their start: those that wait do not wait for a look."""

    def first_check(self, *, quiet_for: float) -> float:
        """Tell in how many seconds to look at the journal, in which something has come up, ``quiet_for`` after the last start or write.

        A quiet process shows its run at once; there is one such write a second at most, since it ends the quiet.

        >>> Ration().first_check(quiet_for=1.0), Ration().first_check(quiet_for=0.999)
        (0.002, 0.05)
        """
        return min(self.linger, self.gather) if quiet_for >= QUIET_SECONDS else self.gather

    def start_waits(self, *, is_hasty: bool) -> float:
        """Tell how old a run must be to be written, unless it has ended by then. Looks are ``gather`` apart, so are writes.

        >>> Ration().start_waits(is_hasty=False), Ration().start_waits(is_hasty=True), Ration(durable=True).start_waits(is_hasty=False)
        (0.05, 0.002, 0.0)
        """
        if self.durable:
            return 0.0
        return min(self.linger, self.gather) if is_hasty else self.gather

    def end_waits(self, *, is_hasty: bool) -> float:
        """Tell how long the end of a written run waits before it is written although no start is.

        >>> Ration().end_waits(is_hasty=False), Ration().end_waits(is_hasty=True)
        (0.2, 0.0)
        """
        return 0.0 if is_hasty else self.gather * ENDS_WAIT_GATHERS


def hasty_left(left: float, *, elapsed: float) -> float:
    """Tell how many runs of a second try may be written at once, ``elapsed`` seconds after there were ``left``.

    A run that is tried again may be a job that kills its worker, and must be known before it can. Where all runs are tried again,
    since what they call is away, most of them are written as others are.

    >>> hasty_left(0.0, elapsed=0.1), hasty_left(0.0, elapsed=1.0), hasty_left(4.0, elapsed=60.0)
    (0.5, 5.0, 5.0)
    """
    return min(left + elapsed * HASTY_A_SECOND, HASTY_A_SECOND)
