"""From what Redis holds to a verdict: which connections the server still has, and what that says of each instance."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from async_tracker.policy import Connection, Evidence, Verdict, judge
from async_tracker.store.instance_record import StoredInstance
from async_tracker.store.observation import Connections, Observation


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server was asked of connections. ``names`` is None when it would not tell."""

    names: Mapping[int, str] | None
    run_id: str


ServerAndId = tuple[str, int]
"""A connection id and the server that gave it: after a restart it counts from 1 again."""


def shared_ids(registered: Iterable[Connections]) -> set[ServerAndId]:
    """Tell which connection ids more than one instance reports: behind a multiplexing proxy they are evidence for nobody.

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


def connection_state(registered: Connections, seen: Seen, *, shared: set[ServerAndId]) -> Connection:
    """Tell whether any registered connection is still there, all are gone, or nothing can be known.

    >>> seen = Seen({7: "async-tracker:ab"}, "5f")
    >>> connection_state(Connections(server="5f", ids={7: "async-tracker:ab"}), seen, shared=set())
    <Connection.OPEN: 'open'>
    >>> connection_state(Connections(server="5f", ids={8: "async-tracker:cd"}), seen, shared=set())
    <Connection.GONE: 'gone'>
    >>> connection_state(Connections(server="old", ids={8: "async-tracker:cd"}), seen, shared=set())
    <Connection.UNKNOWN: 'unknown'>
    """
    if seen.names is None or not registered.ids or registered.server != seen.run_id or shared & _with_server(registered):
        return Connection.UNKNOWN
    # A server counts its clients from 1 again when it restarts: only the name tells one from a namesake.
    if any(seen.names.get(number) == name for number, name in registered.ids.items()):
        return Connection.OPEN
    return Connection.GONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The connections of every registered instance, beside the observation they were looked up for."""

    observation: Observation
    registered: Mapping[str, Connections]
    states: Mapping[str, Connection]


def registered_in(observation: Observation) -> dict[str, Connections]:
    """Give the connections that every registered instance has named."""
    return {name: Connections.decode(observation.connections.get(name, "")) for name in observation.instances}


def findings_of(observation: Observation, registered: Mapping[str, Connections], seen: Seen) -> Findings:
    """Put together what was observed and which connections were seen."""
    shared = shared_ids(registered.values())
    states = {name: connection_state(connections, seen, shared=shared) for name, connections in registered.items()}
    return Findings(observation=observation, registered=registered, states=states)


def heartbeat_age(observation: Observation, instance_id: str) -> float:
    """Seconds since the instance's last heartbeat, on the server's clock."""
    return (observation.now_ms - float(observation.instances[instance_id])) / 1000.0


def live_hosts(observation: Observation, known: Mapping[str, StoredInstance]) -> dict[str, int]:
    """Count the instances with a fresh heartbeat on every host."""
    hosts: dict[str, int] = {}
    for name, stored in known.items():
        if name in observation.instances and heartbeat_age(observation, name) < stored.limits.heartbeat_ttl:
            hosts[stored.description.host_id] = hosts.get(stored.description.host_id, 0) + 1
    return hosts


def weigh(findings: Findings, stored: StoredInstance, *, gone_since_ms: int | None, hosts: Mapping[str, int], draining: bool) -> Verdict:
    """Judge one registered instance by all that was found."""
    observation, name = findings.observation, stored.instance_id
    spoken = observation.watchdogs.get(name)
    age = heartbeat_age(observation, name)
    itself = 1 if age < stored.limits.heartbeat_ttl else 0
    since = observation.server_since_ms
    evidence = Evidence(
        heartbeat_age=age,
        connection=findings.states[name],
        gone_for=(observation.now_ms - gone_since_ms) / 1000.0 if gone_since_ms else 0.0,
        watchdog_age=(observation.now_ms - float(spoken)) / 1000.0 if spoken is not None else None,
        host_seen=hosts.get(stored.description.host_id, 0) > itself,
        server_age=(observation.now_ms - since) / 1000.0 if since is not None else None,
        draining=draining,
    )
    return judge(evidence, stored.limits)
