"""Bad data of one dead instance stops the recovery of that one and of nobody else; its key is named, and without it all goes on."""

import logging

import pytest

from async_tracker.doctor.examination import examine
from async_tracker.doctor.findings import Status
from tests.recovery.test_orphans_kept_and_recovered import Scene, scene

__all__ = ["scene"]

KINDS = {"jobs": "set", "orphans": "hash", "settled": "hash", "told": "set", "instance": "hash", "counters": "hash"}
IN_THE_WAY = {"jobs", "orphans", "settled", "told"}
"""What is only read is judged by its defaults, and goes with its instance."""


async def spoil(scene: Scene, key: str, *, value: str = "theirs") -> str:
    full: str = scene.store.redis.full_key(key).decode()
    await scene.pool.delete(full)
    await scene.pool.set(full, value)
    return full


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recorded", [True, False])
async def test_the_others_are_recovered_and_the_key_is_named(scene: Scene, observer, caplog, kind: str, recorded: bool):
    caplog.set_level(logging.ERROR, logger="async_tracker")
    await scene.holds("spoilt", ["a"], recorded=recorded)
    await scene.holds("another", ["b", "c"], recorded=recorded)
    full = await spoil(scene, f"{kind}:spoilt")
    sweeper = scene.sweeper(recover=True)
    swept = [await sweeper.sweep(scene.run_id) for _ in range(2)]
    assert await scene.claimed("b", "c") == []
    assert "another" not in (await scene.store.observe("")).dead
    assert not any(one.hindered for one in swept), "the lease is given away for nothing"
    if kind not in IN_THE_WAY:
        assert await scene.claimed("a") == []
        return
    assert len([line for line in caplog.messages if full in line]) == 1
    found = [finding for finding in await examine(observer) if full in finding.says]
    assert [finding.status for finding in found] == [Status.PROBLEM]
    assert f"DEL {full!r}" in str(found[0].remedy)
    await observer.recover()
    await scene.pool.delete(full)
    await sweeper.sweep(scene.run_id)
    assert await scene.claimed("a") == []
    assert (await scene.store.observe("")).dead == {}


async def test_a_count_of_deaths_that_cannot_be_kept_settles_nothing_half_way(scene: Scene, caplog):
    caplog.set_level(logging.ERROR, logger="async_tracker")
    await scene.holds("killed", ["a", "b"], recorded=True)
    full = await spoil(scene, "recoveries:a")
    sweeper = scene.sweeper(recover=True)
    await sweeper.sweep(scene.run_id)
    assert await scene.claimed("a", "b") == []
    assert await scene.store.listed_jobs("killed") == ["a"]
    assert len([line for line in caplog.messages if full in line]) == 1
    await scene.pool.delete(full)
    await sweeper.sweep(scene.run_id)
    assert (await scene.store.observe("")).dead == {}
    assert await scene.pool.hlen(full) == 1


async def test_a_queue_of_another_type_costs_the_claims_of_its_workers_alone(scene: Scene, caplog):
    caplog.set_level(logging.ERROR, logger="async_tracker")
    await scene.holds("another", ["b"])
    wrong = Scene(pool=scene.pool, store=scene.store, queue="no:queue", run_id=scene.run_id)
    await wrong.holds("spoilt", [])
    await scene.pool.set("no:queue", "theirs")
    await scene.sweeper(recover=True).sweep(scene.run_id)
    assert await scene.claimed("b") == []
    assert list((await scene.store.observe("")).dead) == ["spoilt"]
    await scene.pool.delete("no:queue")
    await scene.sweeper(recover=True).sweep(scene.run_id)
    assert (await scene.store.observe("")).dead == {}


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300", "-5"])
@pytest.mark.parametrize("key", ["dead", "watchdogs"])
async def test_a_moment_that_is_none_stops_no_sweep_and_no_question(scene: Scene, observer, key: str, score: str):
    await scene.holds("another", ["b"])
    await scene.pool.zadd(scene.store.redis.full_key(key), {b"\xff\xfe": float(score)})
    await scene.sweeper(recover=True).sweep(scene.run_id)
    assert await scene.claimed("b") == []
    await observer.snapshot()
    await scene.pool.delete(scene.store.redis.full_key(key))


async def test_a_note_of_when_it_was_gone_that_is_no_number_is_made_anew(scene: Scene):
    await scene.holds("killed", ["a"])
    await scene.store.redis.hset("gone", "killed", "rubbish")
    sweeper = scene.sweeper(recover=True)
    await sweeper.sweep(scene.run_id)
    assert (await scene.store.redis.hget("gone", "killed")).isdigit()


@pytest.mark.parametrize("limits", ['["a","b","c","d"]', "[1e999,1,60,null]", "[true,1,60,null]", "7", "[" * 100_000, '[15,1,60,"x"]'])
async def test_an_instance_whose_limits_are_none_is_judged_by_the_defaults(scene: Scene, observer, limits: str):
    await scene.holds("spoilt", [])
    await scene.holds("another", ["b"])
    await scene.store.redis.hset("instance:spoilt", "limits", limits)
    await scene.sweeper(recover=True).sweep(scene.run_id)
    assert await scene.claimed("b") == []
    await observer.snapshot()


async def test_a_quarantined_job_whose_record_is_spoiled_is_shown_and_can_be_dropped(scene: Scene, observer):
    for job_id in ("a", "b"):
        await scene.store.redis.zadd("quarantine", {job_id: 5})
    await scene.store.redis.hset(
        "quarantined:a", mapping={"job_id": "a", "deaths": "many", "quarantined_at_ms": "9" * 400, "library": "arq"}
    )
    await spoil(scene, "quarantined:b")
    assert sorted((item.job_id, item.deaths) for item in await observer.quarantined()) == [("a", 0), ("b", 0)]
    assert [await observer.drop_quarantined(job_id) for job_id in ("a", "b")] == [True, True]
    assert await observer.quarantined() == []
