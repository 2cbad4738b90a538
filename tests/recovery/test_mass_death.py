"""Many orphans at once, and queues so long that one look takes longer than a sweep: what is recorded comes first, and all is done once."""

from typing import Any

import pytest

from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.names import IN_PROGRESS
from async_tracker.recovery.lease import LeaseHolder, make_lease
from async_tracker.store import keys
from benchmarks.queries import count_round_trips
from tests.recovery.test_orphans_kept_and_recovered import Scene, scene

__all__ = ["scene"]

pytestmark = pytest.mark.usefixtures("no_leaks")

LONG = 3_000


async def fill(scene: Scene, count: int, *, score: int | None = None) -> None:
    """Queue jobs that are due after all that are enqueued now, or all at one moment."""
    due = {f"waiting-{number}": score if score is not None else 10**14 + number for number in range(count)}
    await scene.pool.zadd(scene.queue, due)


async def counted(scene: Scene, work: Any) -> tuple[dict[str, int], Any]:
    """Give how often each command was run, those in scripts included, and what the work came to."""
    await scene.pool.config_resetstat()
    done = await work
    return {name.removeprefix("cmdstat_"): found["calls"] for name, found in (await scene.pool.info("commandstats")).items()}, done


async def test_the_orphans_of_a_mass_death_take_two_round_trips_for_fifty(scene: Scene):
    for number in range(4):
        await scene.holds(f"w{'x' * number}", [f"{number}-{job}" for job in range(50)], recorded=True)
    sweeper = scene.sweeper(recover=True)
    done: list[Any] = []

    async def sweep() -> None:
        done.extend((await sweeper.sweep(scene.run_id)).done)

    assert await count_round_trips(scene.pool, sweep) <= 60  # 400 and more, one after the other
    assert sorted(item.job_id for item in done) == sorted(f"{number}-{job}" for number in range(4) for job in range(50))
    assert {item.action for item in done} == {"recovered"}
    assert (await scene.store.observe("")).dead == {}


async def test_what_is_recorded_is_recovered_before_the_queue_is_looked_at(scene: Scene):
    await scene.holds("killed", ["a", "b"], recorded=True)
    await fill(scene, LONG)
    sweeper = scene.sweeper(recover=True)
    calls, swept = await counted(scene, sweeper.sweep(scene.run_id, within=0.0))
    assert (sorted(item.job_id for item in swept.done), swept.ran_out) == (["a", "b"], True)
    assert calls.get("zrange", 0) < 10  # those of evidence
    await sweeper.sweep(scene.run_id)


async def test_a_long_queue_is_gone_through_in_parts_in_the_order_of_due_jobs_and_once(scene: Scene):
    await scene.holds("killed", ["a", "b"])
    await fill(scene, LONG)
    sweeper = scene.sweeper(recover=True)
    parts, read, done = 0, 0, []
    while True:
        calls, swept = await counted(scene, sweeper.sweep(scene.run_id, within=0.0))
        parts += 1
        read += calls.get("mget", 0)
        done += [(item.job_id, parts) for item in swept.done]
        if not swept.ran_out:
            break
    assert [job_id for job_id, _ in done] == ["a", "b"]
    first_part_of_the_queue = 2
    assert {part for _, part in done} <= {first_part_of_the_queue, first_part_of_the_queue + 1}  # found at its beginning, then recovered
    assert parts >= LONG // 500
    assert read <= LONG // 500 + 2 * parts  # the queue once, and the records of what was found
    assert await scene.claimed("a", "b") == []
    assert (await scene.store.observe("")).dead == {}


@pytest.mark.parametrize("score", [None, 7], ids=["each its own", "one for all"])
async def test_whatever_scores_jobs_have_each_is_looked_at_also_while_others_end(scene: Scene, score: int | None):
    await fill(scene, 6_000, score=score)
    adapter = ArqAdapter(scene.pool, receipt_key=scene.store.redis.full_key)
    seen: set[bytes] = set()
    ended: set[str] = set()
    async for part in adapter._scan(scene.queue):
        seen.update(part)
        gone = list(part[:20])
        ended |= {name.decode() for name in gone}
        await scene.pool.zrem(scene.queue, *gone)
    assert {f"waiting-{number}" for number in range(6_000)} - {name.decode() for name in seen} <= ended


async def test_a_job_that_would_be_quarantined_waits_until_all_is_known_that_died_with_it(scene: Scene):
    """It is one of two suspects, and only the other one's claim says so."""
    await scene.holds("killed", ["pill"], recorded=True)
    await scene.pool.enqueue_job("job", _job_id="other")
    await scene.pool.set(IN_PROGRESS + "other", "killed:" + "f" * 16, px=310_000)
    await scene.pool.incr("arq:retry:other")
    for job_id in ("pill", "other"):
        deaths = {f"run{number}": (await scene.store.observe("")).now_ms for number in range(3)}
        await scene.store.redis.hset(keys.recoveries(job_id), mapping=deaths)
    swept = await scene.sweeper(recover=True).sweep(scene.run_id)
    assert {item.job_id: str(item.action) for item in swept.done} == {"pill": "delayed", "other": "delayed"}
    for job_id in ("pill", "other"):
        await scene.store.redis.delete(keys.recoveries(job_id))


async def test_a_sweep_that_loses_the_lease_on_the_way_stops(scene: Scene):
    await scene.holds("killed", [f"{number:02}" for number in range(6)], recorded=True)
    asked = 0

    async def on_the_way() -> bool:
        nonlocal asked
        asked += 1
        return asked < 2

    sweeper = scene.sweeper(recover=True, at_once=2)
    swept = await sweeper.sweep(scene.run_id, on_the_way=on_the_way)
    assert (len(swept.done), swept.ran_out) == (4, True)
    assert len((await sweeper.sweep(scene.run_id)).done) == 2


async def test_a_lease_is_renewed_in_the_middle_of_a_long_sweep(scene: Scene):
    lease = make_lease(scene.store, library="arq", recovers=True, sweep_interval=10.0)
    holder = LeaseHolder(text="mine {}", run_id="")
    assert (await lease.elect(holder)).is_ours
    key = f"{scene.store.redis.namespace}:{keys.lease('arq')}"
    assert await scene.pool.pexpire(key, 1_000_000)
    assert await lease.renew(holder)
    assert await scene.pool.pttl(key) > 100_000  # not at each question
    lease._renewed_at -= 30.0  # as half a minute later
    assert await lease.renew(holder)
    assert 0 < await scene.pool.pttl(key) <= 60_000
    await lease.give_way()
