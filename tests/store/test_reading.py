"""What a reader returns: what it found, and beside it the keys that hold something else."""

import json
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from async_tracker import StorageError
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import RunRecord, encode_run

DESCRIPTION = Description(library="arq", host="h", host_id="0f", pid=7)


@pytest.fixture
def reading(redis_client, namespace) -> Reading:
    return Reading(Namespace(redis_client, namespace))


async def test_what_cannot_be_read_of_instances_is_in_the_result_and_in_no_later_one(reading, redis_client, namespace):
    await redis_client.hset(f"{namespace}:instance:good", mapping={**encode_description(DESCRIPTION, Limits()), "started_at_ms": 5})
    await redis_client.hset(f"{namespace}:instance:newer", mapping={"schema": "2", "library": "arq"})
    await redis_client.set(f"{namespace}:instance:foreign", "no hash")
    read = await reading.instances(["good", "newer", "foreign", "nowhere"])
    assert list(read.found) == ["good"]
    assert read.corrupt == ["instance:newer", "instance:foreign"]
    assert read.unreadable == {"newer": {"schema": "2", "library": "arq"}}
    assert (await reading.instances(["good"])).corrupt == []


async def test_a_key_in_place_of_the_jobs_of_an_instance_is_in_the_result(reading, redis_client, namespace):
    await redis_client.set(f"{namespace}:jobs:foreign", "no set")
    await redis_client.sadd(f"{namespace}:jobs:good", "42")
    asked, _ = await reading.ask_instances(["foreign", "good"], with_jobs=True)
    read, _ = await reading.held(asked, ["foreign", "good"])
    assert (read.found, read.corrupt) == ({"good": {"42": None}}, ["jobs:foreign"])
    _, refs = await reading.instances_and_refs(["foreign", "good"])
    assert refs == await reading.refs(["foreign", "good"]) == {"good": ["42"]}


def run_of(instance_id: str, number: int, **facts: Any) -> RunRecord:
    return RunRecord(job_id=f"{number}", instance_id=instance_id, token=f"t{number}", started_at_ms=1, **facts)


async def test_runs_are_counted_by_the_server_as_they_would_be_by_who_reads_them(redis_client, namespace):
    """Of records as ours are, and of whatever else may stand in their places; over the ends of scripts as well."""
    one, other, odd = "one:1:a", 'other "2"\\:2:ü', "odd:3:c"
    names = ["send", "send", "pay", None, 'quoted "name"', "back\\slash", "ключ", ',"library":"', '"try":7', "{", "\x00"]
    records = [run_of(one, number, function=name, queue="mail" if number % 2 else None) for number, name in enumerate(names)]
    records += [run_of(one, 50, function="send", job_try=3), run_of(other, 51, function="send", queue="{", args='"instance":"one:1:a"')]
    raws = {record.job_id: encode_run(record) for record in records}
    ours = [record.job_id for record in records if record.instance_id == one]
    plain = json.loads(encode_run(run_of(odd, 60, function="pay")))
    spaced = json.dumps(plain).encode()  # what another program might make of it
    newer = json.dumps({**plain, "schema": 2}).encode()
    no_name = json.dumps({**plain, "function": 5}, separators=(",", ":")).encode()
    raws |= {"60": spaced, "61": newer, "62": no_name, "63": b"", "64": b"no JSON", "65": b"{", "66": b"[1]"}
    await redis_client.mset({f"{namespace}:job:{ref}": raw for ref, raw in raws.items()})
    await redis_client.lpush(f"{namespace}:job:70", "another type")
    jobs = {one: [*ours, "51", "gone"], other: ["51", ours[0]], odd: ["60", "61", "62", "63", "64", "65", "66", "70"]}
    for name, refs in jobs.items():
        await redis_client.sadd(f"{namespace}:jobs:{name}", *refs)
    await redis_client.set(f"{namespace}:jobs:foreign", "no set")
    for at_once in (1, 3, 1_000):
        reading = Reading(Namespace(redis_client, namespace), records_at_once=at_once)
        asked, _ = await reading.ask_instances([*jobs, "foreign", "idle"], with_jobs=True)
        counted, (answer,) = await reading.count_runs(asked, [*jobs, "foreign", "idle"], beside=[("ECHO", "beside it")])
        assert answer == b"beside it"
        assert counted.listed == {**{name: len(refs) for name, refs in jobs.items()}, "foreign": 0, "idle": 0}
        assert {name: found for name, found in counted.found.items() if found} == {
            one: Counter((record.function, record.queue) for record in records if record.instance_id == one),
            other: {("send", "{"): 1},
            odd: {("pay", None): 1},
        }


async def test_runs_past_their_timeout_are_found_by_the_server_as_they_would_be_by_who_reads_them(redis_client, namespace):
    """Whatever stands in records, and beside them; over the ends of scripts as well."""
    seconds, _ = await redis_client.time()
    one, other, odd = "one:1:a", 'other "2"\\:2:ü', "odd:3:c"
    mark = ',"started_at_ms":1,"timeout":0.001'

    def run(instance_id: str, number: int, timeout: float | None, **facts: Any) -> RunRecord:
        started_at_ms = (seconds - 100) * 1000
        return RunRecord(job_id=f"{number}", instance_id=instance_id, token="t", started_at_ms=started_at_ms, timeout=timeout, **facts)

    late = [run(one, number, timeout, function=mark) for number, timeout in enumerate((1, 2.5, 99.0, 1e-07, 50.0))]
    late += [run(other, 10, 7.0, scope="dramatiq")]
    in_time = [run(one, 20, 1e9, args=mark), run(one, 21, None, args=mark[1:]), run(other, 22, 3_600.0, function=mark), run(odd, 23, 1e20)]
    plain = json.loads(encode_run(run(odd, 30, 3.0)))
    spaced = json.dumps(plain).encode()  # what another program might make of it
    raws = {record.ref: encode_run(record) for record in (*late, *in_time)}
    raws |= {"30": spaced, "31": b'{"schema":99}', "32": json.dumps({**plain, "timeout": 1e9}).encode(), "33": b""}
    raws["34"] = json.dumps({**plain, "function": 5}, separators=(",", ":")).encode()
    await redis_client.mset({f"{namespace}:job:{ref}": raw for ref, raw in raws.items()})
    for name in (one, other, odd):
        refs = [record.ref for record in (*late, *in_time) if record.instance_id == name]
        await redis_client.sadd(f"{namespace}:jobs:{name}", *refs, "gone")
    await redis_client.sadd(f"{namespace}:jobs:{other}", "0")  # the newest run of it is another instance's
    await redis_client.sadd(f"{namespace}:jobs:{odd}", "30", "31", "32", "33", "34")
    await redis_client.set(f"{namespace}:jobs:foreign", "no set")
    for at_once in (1, 3, 1_000):
        reading = Reading(Namespace(redis_client, namespace), records_at_once=at_once)
        found = await reading.overdue_runs([one, other, odd, "foreign", "idle"], most=2)
        assert found.count == 7
        assert sorted(found.corrupt) == ["job:31", "job:33", "job:34", "jobs:foreign"]
        assert 0 <= found.now_ms - seconds * 1000 < 3_600_000
        worst = {(name, ref): stored["timeout"] for name, ref, stored in found.worst}
        assert {(one, "3"), (one, "0"), (other, "dramatiq:10"), (odd, "30")} <= worst.keys()
        assert max(worst.values()) <= 99.0
    assert len(worst) == 4, "of each instance two at most"
    assert (await reading.overdue_runs([], most=2)).count == 0


async def test_what_is_adopted_and_what_runs_are_read_together(reading, redis_client, namespace):
    adopted = RunRecord(job_id="42", instance_id="dead", token="a", started_at_ms=1)
    running = RunRecord(job_id="42", instance_id="lives", token="b", started_at_ms=2)
    await redis_client.hset(f"{namespace}:orphans:dead", mapping={"42": encode_run(adopted), "43": "not JSON"})
    await redis_client.set(f"{namespace}:orphans:foreign", "no hash")
    await redis_client.set(f"{namespace}:job:42", encode_run(running))
    await redis_client.hset(f"{namespace}:settled:dead", "c", 5)
    found = await reading.adopted_and_runs(["dead", "foreign"], ["42", "43"])
    assert found == ({"dead": {"42": adopted}, "foreign": {}}, {"42": running}, {"dead"})


async def test_a_server_that_refuses_to_read_records_is_told_as_such(make_server, namespace):
    server = make_server(extra_args=("--user", *"reader on nopass ~* &* +@all -mget".split()))
    async with Redis(unix_socket_path=server.unix_socket_path, username="reader", password="any") as client:
        with pytest.raises(StorageError, match="refuses"):
            await Reading(Namespace(client, namespace)).raw_runs(["42"])
