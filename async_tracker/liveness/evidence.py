"""From what Redis holds to a verdict: which connections the server still has, and what that says of each instance. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from async_tracker.policy import Connection, Evidence, InstanceState, Verdict, judge
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.observation import Connections, Observation


@dataclass(frozen=True, slots=True)
class OpenConnections:
    """Which of the connections that it was asked for the server has, by id; ``names`` is None when it does not tell."""

    names: Mapping[int, str] | None
    run_id: str


ServerAndId = tuple[str, int]
"""A connection id and the server that gave it: after a restart it counts from 1 again."""


def shared_ids(registered: Iterable[Connections]) -> set[ServerAndId]:
    """Tell which connection ids more than one instance reports: behind a multiplexing proxy they are evidence for no instance.

    >>> shared_ids([Connections(ids={1: "a"}), Connections(ids={1: "b", 2: "b"}), Connections(server="older", ids={2: "c"})])
    {('', 1)}
    """
    once: set[ServerAndId] = set()
    again: set[ServerAndId] = set()
    for connections in registered:
        found = _with_server(connections)
        again |= once & found
        once |= found
    return again


def _with_server(connections: Connections) -> set[ServerAndId]:
    return {(connections.server, number) for number in connections.ids}


def connection_state(registered: Connections, seen: OpenConnections, *, shared: set[ServerAndId]) -> Connection:
    """Tell whether any registered connection is still there, all are gone, or nothing can be known.

    >>> seen = OpenConnections({7: "async-tracker:ab"}, "5f")
    >>> connection_state(Connections(server="5f", ids={7: "async-tracker:ab"}), seen, shared=set())
    <Connection.OPEN: 'open'>
    >>> connection_state(Connections(server="5f", ids={8: "async-tracker:cd"}), seen, shared=set())
    <Connection.GONE: 'gone'>
    >>> connection_state(Connections(server="old", ids={8: "async-tracker:cd"}), seen, shared=set())
    <Connection.UNKNOWN: 'unknown'>
    """
    if seen.names is None or not registered.ids or registered.server != seen.run_id or shared & _with_server(registered):
        return Connection.UNKNOWN
    # A server that restarts numbers its clients from 1 again, so a number alone could be another client's: the name must match too.
    if any(seen.names.get(number) == name for number, name in registered.ids.items()):
        return Connection.OPEN
    return Connection.GONE


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetEvidence:
    """The connections of every registered instance and whether they are open, beside the observation that names them."""

    observation: Observation
    registered: Mapping[str, Connections]
    states: Mapping[str, Connection]
    """Of those instances whose connections were asked for."""


def registered_in(observation: Observation) -> dict[str, Connections]:
    """Give the connections that every registered instance has named."""
    return {name: Connections.decode(observation.connections.get(name, "")) for name in observation.instances}


def fleet_evidence(observation: Observation, registered: Mapping[str, Connections], seen: OpenConnections) -> FleetEvidence:
    """Put together what was observed of some instances and which of their connections are open."""
    shared = shared_ids(registered.values())
    states = {name: connection_state(connections, seen, shared=shared) for name, connections in registered.items()}
    return FleetEvidence(observation=observation, registered=registered, states=states)


def heartbeat_age(observation: Observation, instance_id: str) -> float:
    """Seconds since the instance's last heartbeat, on the server's clock."""
    return (observation.now_ms - float(observation.instances[instance_id])) / 1000.0


def assumed_gone_since_ms(*, now_ms: int, heartbeat_age: float, heartbeat_ttl: float) -> int:
    """Tell since when connections count as gone that the server no longer has, and that no sweep has marked as gone.

    An instance that lives beats again by half its ``heartbeat_ttl``: as long as it is not later than that, they went just now.

    >>> assumed_gone_since_ms(now_ms=100_000, heartbeat_age=10.0, heartbeat_ttl=15.0)  # its beat is 2.5 s late
    97500
    >>> assumed_gone_since_ms(now_ms=100_000, heartbeat_age=7.5, heartbeat_ttl=15.0)
    99999
    """
    late_ms = 1000.0 * (heartbeat_age - heartbeat_ttl / 2.0)
    return int(now_ms - max(late_ms, 1.0))


def gone_since_ms(evidence: FleetEvidence, stored: StoredInstance) -> int | None:
    """Tell since when the connections of a registered instance are gone: by the mark of a sweep, else as `assumed_gone_since_ms` says.

    None while one of them is there, or cannot be known to be gone. For those who look and mark nothing: questions, and a sweep that
    only plans.
    """
    observation, name = evidence.observation, stored.instance_id
    if evidence.states[name] is not Connection.GONE:
        return None
    marked_ms = observation.gone.get(name)
    if marked_ms is not None:
        return marked_ms
    age = heartbeat_age(observation, name)
    return assumed_gone_since_ms(now_ms=observation.now_ms, heartbeat_age=age, heartbeat_ttl=stored.limits.heartbeat_ttl)


def live_hosts(observation: Observation, known: Mapping[str, StoredInstance]) -> dict[str, int]:
    """Count the instances with a fresh heartbeat on every host."""
    hosts: dict[str, int] = {}
    for name, stored in known.items():
        if name in observation.instances and heartbeat_age(observation, name) < stored.limits.heartbeat_ttl:
            hosts[stored.description.host_id] = hosts.get(stored.description.host_id, 0) + 1
    return hosts


def weigh(evidence: FleetEvidence, stored: StoredInstance, *, gone_since_ms: int | None, hosts: Mapping[str, int]) -> Verdict:
    """Judge one registered instance by all that was found, and by what it said of itself last."""
    observation, name = evidence.observation, stored.instance_id
    spoken = observation.watchdogs.get(name)
    age = heartbeat_age(observation, name)
    itself = 1 if age < stored.limits.heartbeat_ttl else 0
    since, back = observation.server_since_ms, observation.back_at_ms
    own = Evidence(
        heartbeat_age=age,
        connection=evidence.states[name],
        gone_for=(observation.now_ms - gone_since_ms) / 1000.0 if gone_since_ms else 0.0,
        watchdog_age=(observation.now_ms - float(spoken)) / 1000.0 if spoken is not None else None,
        host_seen=hosts.get(stored.description.host_id, 0) > itself,
        server_age=(observation.now_ms - since) / 1000.0 if since is not None else None,
        has_returned=has_returned(observation, name, evidence.registered.get(name, Connections())),
        absence_age=(observation.now_ms - back) / 1000.0 if back is not None else None,
        draining=stored.state == InstanceState.DRAINING,
        quiet=stored.state == InstanceState.QUIET,
    )
    return judge(own, stored.limits)


def has_returned(observation: Observation, instance_id: str, registered: Connections) -> bool:
    """Tell whether an instance has come to the present server: it has registered its connections there, or beaten since."""
    is_here = registered.server != "" and registered.server == observation.run_id
    return is_here or float(observation.instances[instance_id]) > (observation.server_since_ms or 0)


UNNOTED_SECONDS = 60.0
"""For how long a change of the server that no sweep has noted is taken to be new, although no instance beats."""


def unnoted_since_ms(observation: Observation, *, uptime: float) -> int:
    """Tell since when Redis is this server, where no sweep has noted it: just now, unless no instance is left to sweep.

    ``uptime`` is that of the server, in seconds: after a long outage all heartbeats are old.

    >>> def since(beat_ms, uptime):
    ...     seen = Observation(now_ms=200_000, server_since_ms=200_000, run_id="5f", instances={"w": beat_ms}, connections={},
    ...         gone={}, watchdogs={}, dead={})
    ...     return unnoted_since_ms(seen, uptime=uptime)
    >>> since("199000", 9_000.0), since("100000", 9_000.0), since("100000", 3.0)
    (200000, 160000, 200000)
    """
    newest_ms = max(map(float, observation.instances.values()), default=0.0)
    idle_ms = min(observation.now_ms - newest_ms, 1000.0 * uptime)
    return int(observation.now_ms - max(idle_ms - 1000.0 * UNNOTED_SECONDS, 0.0))


def rests_on_others(observation: Observation, stored: StoredInstance) -> bool:
    """Tell whether the verdict on a registered instance rests on other instances: of a silent one, on those that prove its host there."""
    return stored.instance_id in observation.instances and heartbeat_age(observation, stored.instance_id) >= stored.limits.heartbeat_ttl


def judged_with_all(evidence: FleetEvidence, connections: Mapping[str, str]) -> FleetEvidence:
    """Give evidence on some instances beside the connections of all: what another instance reports too, is evidence for neither.

    >>> nothing = {"connections": {}, "gone": {}, "watchdogs": {}, "dead": {}}
    >>> seen = Observation(now_ms=9, server_since_ms=None, run_id="5f", instances={"a": "9"}, **nothing)
    >>> both = Connections(server="5f", ids={7: "x"})
    >>> found = FleetEvidence(observation=seen, registered={"a": both}, states={"a": Connection.GONE})
    >>> judged_with_all(found, {"a": both.encode(), "b": both.encode()}).states["a"]
    <Connection.UNKNOWN: 'unknown'>
    """
    of_others = (Connections.decode(said) for name, said in connections.items() if name not in evidence.registered)
    shared = shared_ids([*evidence.registered.values(), *of_others])
    states = {
        name: Connection.UNKNOWN if shared & _with_server(evidence.registered[name]) else state for name, state in evidence.states.items()
    }
    return replace(evidence, states=states)


def verdicts_of(
    evidence: FleetEvidence, known: Mapping[str, StoredInstance], *, hosts: Mapping[str, int] | None = None
) -> dict[str, Verdict]:
    """Judge the registered instances among the known ones, and mark nothing: the verdict of a question.

    ``hosts`` are the `live_hosts` of all instances, by default of the known ones. A sweep judges by the same `weigh`, with its own
    marks in the place of `gone_since_ms`: an instance is dead here as soon as it would be dead there, had a sweep looked when it began
    to be late.
    """
    hosts = live_hosts(evidence.observation, known) if hosts is None else hosts
    return {
        name: weigh(
            evidence,
            stored,
            gone_since_ms=gone_since_ms(evidence, stored),
            hosts=hosts,
        )
        for name, stored in known.items()
        if name in evidence.observation.instances
    }
