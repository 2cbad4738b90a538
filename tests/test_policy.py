"""The failure detector as a function: which rows there are, in which order, and what no evidence may bring about."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from async_tracker import InstanceState
from async_tracker.policy import (
    HOST_SEEN_FACTOR,
    Connection,
    Evidence,
    Limits,
    apart,
    is_poison,
    judge,
    next_beat,
    recovery_delay,
    standby_interval,
)

LIMITS = Limits()
DEATH = [InstanceState.ALIVE, InstanceState.STALLED_BLOCKED, InstanceState.STALLED_SILENT, InstanceState.DEAD]

seconds = st.one_of(
    st.sampled_from([0.0, 0.5, 0.999, 1.0, 1.001, 14.999, 15.0, 59.999, 60.0, 599.999, 600.0, 1e6]), st.floats(min_value=0.0, max_value=1e6)
)
ages = st.one_of(st.none(), seconds)


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    ttl = draw(st.floats(min_value=0.01, max_value=100.0))
    return Limits(
        heartbeat_ttl=ttl,
        disconnect_grace=draw(st.floats(min_value=0.0, max_value=100.0)),
        silence_limit=ttl + draw(st.floats(min_value=0.0, max_value=1000.0)),
        stall_limit=draw(st.one_of(st.none(), st.floats(min_value=ttl, max_value=1000.0))),
    )


evidences = st.builds(
    Evidence,
    heartbeat_age=seconds,
    connection=st.sampled_from(Connection),
    gone_for=seconds,
    watchdog_age=ages,
    host_seen=st.booleans(),
    server_age=ages,
    has_returned=st.booleans(),
    absence_age=ages,
    draining=st.booleans(),
)


def evidence(**facts: object) -> Evidence:
    return Evidence(**{"heartbeat_age": 0.0, **facts})  # type: ignore[arg-type]


def deadness(found: Evidence, by: Limits) -> int:
    state = judge(found, by).state
    return DEATH.index(InstanceState.ALIVE if state in (InstanceState.DRAINING, InstanceState.RETURNING) else state)


def speaks(found: Evidence, by: Limits) -> bool:
    """Tell whether the watchdog's last word is fresh, and was not said before the connections were seen gone."""
    if found.watchdog_age is None or found.watchdog_age >= by.heartbeat_ttl:
        return False
    return found.connection is not Connection.GONE or found.watchdog_age < found.gone_for or found.gone_for < by.disconnect_grace


def changed(found: Evidence, **facts: object) -> Evidence:
    kept = {name: getattr(found, name) for name in Evidence.__dataclass_fields__}
    return Evidence(**{**kept, **facts})


def test_the_rows_are_tried_in_the_order_of_the_contract():
    rows = [
        (evidence(heartbeat_age=900.0, connection=Connection.GONE, gone_for=900.0, absence_age=14.9), InstanceState.ALIVE),
        (evidence(heartbeat_age=900.0, connection=Connection.GONE, gone_for=900.0, server_age=14.9), InstanceState.RETURNING),
        (evidence(heartbeat_age=0.1, connection=Connection.UNKNOWN, server_age=14.9), InstanceState.RETURNING),
        (evidence(heartbeat_age=0.1, connection=Connection.OPEN, server_age=1.0, has_returned=True), InstanceState.ALIVE),
        (evidence(heartbeat_age=0.1, connection=Connection.GONE, gone_for=1.0, server_age=1.5, has_returned=True), InstanceState.DEAD),
        (evidence(heartbeat_age=900.0, connection=Connection.UNKNOWN, server_age=15.0), InstanceState.DEAD),
        (evidence(heartbeat_age=0.1, connection=Connection.GONE, gone_for=1.0), InstanceState.DEAD),
        (evidence(heartbeat_age=900.0, connection=Connection.GONE, gone_for=1.0), InstanceState.DEAD),
        (evidence(heartbeat_age=900.0, connection=Connection.GONE, gone_for=2.0, watchdog_age=3.0), InstanceState.DEAD),
        (evidence(heartbeat_age=900.0, connection=Connection.GONE, gone_for=2.0, watchdog_age=1.0), InstanceState.STALLED_BLOCKED),
        (evidence(heartbeat_age=14.9, connection=Connection.UNKNOWN), InstanceState.ALIVE),
        (evidence(heartbeat_age=14.9, draining=True), InstanceState.DRAINING),
        (evidence(heartbeat_age=14.9, connection=Connection.GONE, gone_for=0.9), InstanceState.ALIVE),
        (evidence(heartbeat_age=900.0, watchdog_age=14.9), InstanceState.STALLED_BLOCKED),
        (evidence(heartbeat_age=59.9, connection=Connection.OPEN), InstanceState.STALLED_SILENT),
        (evidence(heartbeat_age=60.0, connection=Connection.OPEN), InstanceState.DEAD),
        (evidence(heartbeat_age=599.9, connection=Connection.OPEN, host_seen=True), InstanceState.STALLED_SILENT),
        (evidence(heartbeat_age=600.0, connection=Connection.OPEN, host_seen=True), InstanceState.DEAD),
        (evidence(heartbeat_age=15.0, connection=Connection.UNKNOWN), InstanceState.DEAD),
        (evidence(heartbeat_age=15.0, connection=Connection.GONE, gone_for=0.9), InstanceState.STALLED_SILENT),
    ]
    for number, (found, state) in enumerate(rows):
        assert judge(found, LIMITS).state is state, f"row {number}: {found}"


@given(evidences, limits())
def test_every_combination_has_a_verdict_with_a_reason_in_words(found: Evidence, by: Limits):
    verdict = judge(found, by)
    assert verdict.state in InstanceState
    assert " " in verdict.reason


@given(evidences, limits())
def test_while_the_watchdog_speaks_nobody_is_dead_unless_the_stall_limit_says_so(found: Evidence, by: Limits):
    if speaks(found, by) and judge(found, by).state is InstanceState.DEAD:
        assert by.stall_limit is not None
        assert found.heartbeat_age >= by.stall_limit


@given(evidences, limits())
def test_a_fresh_heartbeat_is_only_outweighed_by_connections_that_are_gone_for_the_grace(found: Evidence, by: Limits):
    if found.heartbeat_age < by.heartbeat_ttl and judge(found, by).state is InstanceState.DEAD:
        assert found.connection is Connection.GONE
        assert found.gone_for >= by.disconnect_grace


@given(evidences, limits())
def test_nobody_is_dead_or_called_alive_before_it_had_time_to_return_to_another_server(found: Evidence, by: Limits):
    is_away = found.absence_age is not None and found.absence_age < by.heartbeat_ttl
    if found.server_age is not None and found.server_age < by.heartbeat_ttl and not found.has_returned and not is_away:
        assert judge(found, by).state is InstanceState.RETURNING


@given(evidences, limits())
def test_nobody_is_dead_while_the_one_who_judges_is_only_just_back(found: Evidence, by: Limits):
    if found.absence_age is not None and found.absence_age < by.heartbeat_ttl:
        assert judge(found, by).state in (InstanceState.ALIVE, InstanceState.DRAINING)


@given(evidences, limits())
def test_only_the_dead_are_blameless_and_only_where_the_server_has_changed(found: Evidence, by: Limits):
    verdict = judge(found, by)
    if verdict.is_blameless:
        assert verdict.state is InstanceState.DEAD
        assert found.server_age is not None
        assert not found.has_returned or found.server_age < by.heartbeat_ttl


@given(evidences, limits(), seconds)
def test_a_longer_silence_never_makes_a_verdict_less_dead(found: Evidence, by: Limits, longer: float):
    assert deadness(changed(found, heartbeat_age=found.heartbeat_age + longer), by) >= deadness(found, by)


@given(evidences, limits(), seconds)
def test_a_longer_absence_of_the_connections_never_makes_a_verdict_less_dead(found: Evidence, by: Limits, longer: float):
    """The age of the watchdog's word grows with it: it is the same word."""
    later = changed(
        found,
        heartbeat_age=found.heartbeat_age + longer,
        gone_for=found.gone_for + longer,
        watchdog_age=None if found.watchdog_age is None else found.watchdog_age + longer,
        server_age=None if found.server_age is None else found.server_age + longer,
        absence_age=None if found.absence_age is None else found.absence_age + longer,
    )
    assert deadness(later, by) >= deadness(found, by)


@given(evidences, limits())
def test_a_connection_that_closes_never_makes_a_verdict_less_dead(found: Evidence, by: Limits):
    assert deadness(changed(found, connection=Connection.GONE), by) >= deadness(changed(found, connection=Connection.OPEN), by)


@given(evidences, limits(), ages)
def test_a_watchdog_that_falls_silent_never_makes_a_verdict_less_dead(found: Evidence, by: Limits, age: float | None):
    older = None if age is None or found.watchdog_age is None else found.watchdog_age + age
    assert deadness(changed(found, watchdog_age=older), by) >= deadness(found, by)


@given(evidences, limits())
def test_a_host_that_nobody_sees_never_makes_a_verdict_less_dead(found: Evidence, by: Limits):
    assert deadness(changed(found, host_seen=False), by) >= deadness(changed(found, host_seen=True), by)


@given(evidences, limits())
def test_silence_never_lasts_for_ever(found: Evidence, by: Limits):
    silent = changed(found, watchdog_age=None, server_age=None, absence_age=None, heartbeat_age=HOST_SEEN_FACTOR * by.silence_limit)
    assert judge(silent, by).state is InstanceState.DEAD


def test_no_two_kinds_of_evidence_are_left_without_a_row():
    steps = {
        "heartbeat_age": (0.0, 15.0, 60.0, 600.0),
        "connection": tuple(Connection),
        "gone_for": (0.0, 1.0, 20.0),
        "watchdog_age": (None, 0.5, 10.0, 30.0),
        "host_seen": (False, True),
        "server_age": (None, 1.0, 20.0),
        "has_returned": (False, True),
        "absence_age": (None, 1.0),
        "draining": (False, True),
        "quiet": (False, True),
    }
    seen = {judge(Evidence(**dict(zip(steps, values, strict=True))), LIMITS).state for values in itertools.product(*steps.values())}  # type: ignore[arg-type]
    assert seen == set(InstanceState)


@given(st.integers(min_value=0, max_value=1000), st.floats(min_value=0.0, max_value=1.0, exclude_max=True))
def test_recoveries_are_delayed_ever_longer_and_within_a_bound(deaths: int, jitter: float):
    delay = recovery_delay(deaths, jitter=jitter)
    assert 0.0 <= delay <= 600.0
    assert (delay == 0.0) == (deaths <= 1)
    assert recovery_delay(deaths + 1, jitter=jitter) >= delay


@given(st.integers(min_value=0, max_value=100))
def test_a_job_is_poison_after_just_as_many_recoveries_as_are_allowed(allowed: int):
    assert not is_poison(allowed, max_recoveries=allowed)
    assert is_poison(allowed + 1, max_recoveries=allowed)


@given(st.integers(min_value=0, max_value=20), st.integers(min_value=1, max_value=200), st.integers(min_value=1, max_value=100))
def test_company_earns_a_job_another_chance_but_not_for_ever(allowed: int, deaths: int, suspects: int):
    alone = is_poison(deaths, max_recoveries=allowed)
    in_company = is_poison(deaths, max_recoveries=allowed, suspects=suspects)
    assert alone or not in_company
    assert in_company or deaths <= 2 * allowed or not alone


@given(st.integers(min_value=1, max_value=100), st.floats(min_value=0.0, max_value=1.0, exclude_max=True))
def test_jobs_that_died_together_come_back_at_least_half_a_step_apart(among: int, jitter: float):
    places = [apart(position, among, jitter=jitter if position % 2 else 0.0) for position in range(among)]
    assert all(0.0 <= place < 1.0 for place in places)
    assert all(later - earlier >= 0.5 / among - 1e-9 for earlier, later in itertools.pairwise(places))


@given(st.floats(min_value=0.01, max_value=60.0), st.floats(min_value=0.0, max_value=1.0))
def test_a_beat_is_never_later_than_its_interval(interval: float, jitter: float):
    assert 0.9 * interval <= next_beat(interval, jitter=jitter) <= interval


@given(st.floats(min_value=0.05, max_value=5.0), st.integers(min_value=1, max_value=100_000))
def test_the_looks_of_all_stand_bys_do_not_grow_with_the_fleet(interval: float, instances: int):
    looks = instances / standby_interval(interval, instances)
    assert looks <= 8.0 / interval * 1.000_001
    assert standby_interval(interval, instances) == interval or looks >= 8.0 / interval * 0.999_999
