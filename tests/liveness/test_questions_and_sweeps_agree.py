"""What questions say of an instance and what a sweep does with it rest on the same evidence and the same rule."""

from hypothesis import given
from hypothesis import strategies as st

from async_tracker.config import Settings
from async_tracker.liveness.evidence import FleetEvidence, assumed_gone_since_ms, live_hosts, verdicts_of, weigh
from async_tracker.namespace import Namespace
from async_tracker.policy import Connection, InstanceState, Limits
from async_tracker.queries.questions import Queries
from async_tracker.recovery.sweeper import make_sweeper
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, StoredInstance
from async_tracker.store.observation import Observation
from tests.harness.kinds import KINDS, one_of_each_kind

DEAD = InstanceState.DEAD


def as_life_or_death(states: dict[str, InstanceState]) -> dict[str, str]:
    """Take ``draining`` for alive: a sweep has no use for the difference."""
    return {name: "alive" if state is InstanceState.DRAINING else str(state) for name, state in states.items()}


async def test_once_a_sweep_has_marked_what_is_gone_questions_judge_by_its_mark(redis_client, redis_url, namespace):
    redis = Namespace(redis_client, namespace)
    queries = Queries(redis)
    sweeper = make_sweeper(Settings(namespace=namespace), Store(redis), None, library="asyncio", on_event=lambda event: None)
    registered = {name: kind for name, kind in KINDS.items() if not kind.is_declared_dead}
    async with one_of_each_kind(redis_url, namespace):
        run_id = await queries.server_run_id()
        gone = {name for name, kind in registered.items() if kind.connection is Connection.GONE}
        assert {item.instance_id for item in await queries.instances() if item.state is DEAD} > gone - {"gone just now"}
        for marked_ms_ago, is_dead in ((None, False), (10_000, True)):
            if marked_ms_ago is not None:
                seconds, _ = await redis_client.time()
                await redis_client.hset(f"{namespace}:gone", mapping=dict.fromkeys(gone, seconds * 1000 - marked_ms_ago))
            _, verdicts = await sweeper.judge_all(run_id)
            swept = {name: verdict.state for name, verdict in verdicts.items()}
            asked = {item.instance_id: item.state for item in await queries.instances() if item.instance_id in registered}
            assert as_life_or_death(asked) == as_life_or_death(swept)
            assert {name: swept[name] is DEAD for name in gone} == dict.fromkeys(gone, is_dead)


ages = st.floats(0.0, 120.0)


@st.composite
def one_instance(draw) -> tuple[FleetEvidence, StoredInstance, int]:
    """Draw the evidence on one instance, without a mark, and the server's time."""
    now_ms = 1_000_000
    limits = Limits(heartbeat_ttl=draw(st.floats(1.0, 60.0)), disconnect_grace=draw(st.floats(0.1, 5.0)))
    description = Description(library="asyncio", host="h", host_id="0f", pid=7)
    state = draw(st.sampled_from(["alive", "draining"]))
    stored = StoredInstance(instance_id="w", description=description, limits=limits, started_at_ms=0, state=state)
    spoken = draw(st.none() | ages)
    observation = Observation(
        now_ms=now_ms,
        server_since_ms=draw(st.none() | st.integers(0, now_ms)),
        run_id="5f",
        instances={"w": str(now_ms - int(1000 * draw(ages)))},
        connections={},
        gone={},
        watchdogs={"w": str(now_ms - int(1000 * spoken))} if spoken is not None else {},
        dead={},
    )
    return FleetEvidence(observation=observation, registered={}, states={"w": draw(st.sampled_from(Connection))}), stored, now_ms


@given(one_instance())
def test_a_question_judges_as_a_sweep_that_had_marked_the_connection_when_the_instance_began_to_be_late(drawn):
    evidence, stored, now_ms = drawn
    asked = verdicts_of(evidence, {"w": stored})["w"]
    age = (now_ms - float(evidence.observation.instances["w"])) / 1000
    since_ms = assumed_gone_since_ms(now_ms=now_ms, heartbeat_age=age, heartbeat_ttl=stored.limits.heartbeat_ttl)
    hosts = live_hosts(evidence.observation, {"w": stored})
    swept = weigh(evidence, stored, gone_since_ms=since_ms, hosts=hosts)
    assert asked.reason == swept.reason
    assert as_life_or_death({"w": asked.state}) == as_life_or_death({"w": swept.state})


@given(one_instance())
def test_no_assumed_mark_is_older_than_the_last_beat(drawn):
    evidence, stored, now_ms = drawn
    beat_ms = float(evidence.observation.instances["w"])
    since_ms = assumed_gone_since_ms(now_ms=now_ms, heartbeat_age=(now_ms - beat_ms) / 1000, heartbeat_ttl=stored.limits.heartbeat_ttl)
    assert beat_ms - 1 <= since_ms < now_ms
