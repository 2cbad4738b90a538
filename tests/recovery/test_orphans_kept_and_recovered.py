"""What a sweep does with the dead: recovered within its time, or only watched: then kept until somebody recovers, and told once."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from arq.connections import ArqRedis

from async_tracker import Tracker
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.names import IN_PROGRESS, RETRY
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.recovery.sweeper import Sweeper, Swept, make_sweeper
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord

pytestmark = pytest.mark.usefixtures("no_leaks")


@dataclass
class Scene:
    """Instances whose connections are gone, as the server sees them, and what they held."""

    pool: ArqRedis
    store: Store
    queue: str
    run_id: str
    told: list[str] = field(default_factory=list)

    async def holds(self, name: str, jobs: list[str], *, started: bool = True, recorded: bool = False) -> None:
        """Register an instance that holds these jobs and is not there any more."""
        description = Description(library="arq", host="h", host_id="h", pid=1, queue=self.queue)
        connections = Connections(server=self.run_id, ids={10**9 + len(name): "async-tracker:gone"}).encode()
        await self.store.register(name, 1, connections, {**encode_description(description, Limits()), "state": "alive"})
        await self.store.redis.hset(keys.GONE, name, 1)
        for number, job_id in enumerate(jobs):
            assert await self.pool.enqueue_job("job", _job_id=job_id) is not None
            record = RunRecord(job_id=job_id, instance_id=name, token=f"{number:016x}", queue=self.queue, library="arq", started_at_ms=1)
            await self.pool.set(IN_PROGRESS + job_id, record.claim, px=310_000)
            if started:
                await self.pool.incr(RETRY + job_id)
            if recorded:
                await self.store.write(name, 2 + number, started=[record], ended=[])

    def sweeper(self, *, recover: bool, at_once: int = 50) -> Sweeper:
        settings = Tracker(namespace="any", recover=recover).settings
        adapter = ArqAdapter(self.pool, receipt_key=self.store.redis.full_key)
        return make_sweeper(settings, self.store, adapter, library="arq", on_event=self.told.append, at_once=at_once)

    async def claimed(self, *jobs: str) -> list[str]:
        """Give those of these jobs that are still claimed."""
        return [job for job in jobs if await self.pool.exists(IN_PROGRESS + job)]


@pytest.fixture
async def scene(pool: ArqRedis, namespace: str, queue: str) -> Scene:
    info: dict[str, Any] = await pool.info("server")
    return Scene(pool=pool, store=Store(Namespace(pool, namespace)), queue=queue, run_id=info["run_id"])


def types(told: list[str]) -> list[str]:
    return [event.split('"type":"')[1].split('"')[0] for event in told]


async def test_a_sweep_that_runs_out_of_time_leaves_the_rest_to_the_next_and_judges_in_between(scene: Scene):
    """The older death's orphans first, and the later death is noted before they are through."""
    await scene.holds("first", ["a", "b", "c"], recorded=True)
    sweeper = scene.sweeper(recover=True, at_once=1)
    swept = await sweeper.sweep(scene.run_id, within=0.0)
    assert ([done.job_id for done in swept.done], swept.ran_out) == (["a"], True)
    await scene.holds("second", ["d"])
    assert len((await sweeper.sweep(scene.run_id, within=0.0)).done) == 1
    assert sorted((await scene.store.observe("")).dead) == ["first", "second"]
    assert types(scene.told).count("instance_dead") == 2
    sweeps = 0
    while (await sweeper.sweep(scene.run_id, within=0.0)).ran_out:
        sweeps += 1
        assert sweeps < 20
    assert await scene.claimed("a", "b", "c", "d") == []
    assert (await scene.store.observe("")).dead == {}


async def test_who_only_watches_buries_no_instance_whose_claims_stand_and_the_one_that_recovers_counts_the_death(
    scene: Scene, observer: Tracker
):
    await scene.holds("killed", ["42"])
    watching = scene.sweeper(recover=False)
    for _ in range(3):
        assert await watching.sweep(scene.run_id) == Swept()
    assert await scene.claimed("42") == ["42"]
    assert [orphan.job_id for orphan in await observer.orphans()] == ["42"]
    [done] = (await scene.sweeper(recover=True).sweep(scene.run_id)).done
    assert (done.job_id, done.deaths) == ("42", 1)
    assert await scene.claimed("42") == []
    assert await watching.sweep(scene.run_id) == Swept()
    assert (await scene.store.observe("")).dead == {}


@pytest.mark.parametrize("recorded", [True, False])
async def test_an_orphan_that_no_worker_recovers_is_told_once_and_its_recovery_does_not_tell_it_again(
    scene: Scene, observer: Tracker, recorded: bool
):
    await scene.holds("killed", ["42"], recorded=recorded)
    for watching in (scene.sweeper(recover=False), scene.sweeper(recover=False)):
        await watching.sweep(scene.run_id)
    assert types(scene.told) == ["instance_dead", "orphaned"]
    assert (await observer.stats()).orphaned == 1
    await scene.sweeper(recover=True).sweep(scene.run_id)
    assert types(scene.told) == ["instance_dead", "orphaned", "recovered"]
    assert [event.type for event in await observer.recent_events()] == types(scene.told)
    stats = await observer.stats()
    assert (stats.orphaned, stats.recovered) == (1, 1)


async def test_a_job_that_was_claimed_and_never_started_is_given_back_and_no_death_counts_against_it(scene: Scene, observer: Tracker):
    await scene.holds("killed", ["42"], started=False)
    await scene.holds("another", ["43"], started=True)
    watching = scene.sweeper(recover=False)
    await watching.sweep(scene.run_id)
    assert [orphan.job_id for orphan in await observer.orphans()] == ["43"]
    assert sorted((await scene.store.observe("")).dead) == ["another", "killed"]
    [done] = (await scene.sweeper(recover=True).sweep(scene.run_id)).done
    assert done.job_id == "43"
    assert await scene.claimed("42", "43") == []
    assert await scene.pool.exists(scene.store.redis.full_key("recoveries:42")) == 0
    assert await scene.pool.exists(scene.store.redis.full_key("recoveries:43")) == 1
    assert (await scene.store.observe("")).dead == {}


async def test_what_no_worker_recovers_within_the_window_is_forgotten(scene: Scene, redis_client: Any, namespace: str):
    await scene.holds("killed", ["42"])
    watching = scene.sweeper(recover=False)
    await watching.sweep(scene.run_id)
    await redis_client.zincrby(f"{namespace}:dead", -3 * 86_400_000, "killed")
    await watching.sweep(scene.run_id)
    assert (await scene.store.observe("")).dead == {}
