"""What there is, as a person and as a program see it."""

import json
import re
from contextlib import asynccontextmanager

import anyio
import pytest
import redis
from arq import create_pool
from arq.connections import RedisSettings

from async_tracker import Tracker
from async_tracker.clock import ServerClock
from async_tracker.events.encoding import encode_event
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.run_record import RunRecord
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until

STRANGE = "a b:*{1}[red]\n\x1b[31mé\\"
SHOWN = r"a b:*{1}[red]\n\x1b[31mé" + "\\"


@asynccontextmanager
async def working(redis_client, namespace, **settings):
    async with (
        Tracker(namespace=namespace, redis=redis_client, **KNOWN, **settings) as tracker,
        tracker.register(queue="mail", concurrency=4),
    ):
        yield tracker


@pytest.mark.parametrize("arguments", [["ps"], ["jobs"], ["orphans"], ["stats"], ["events"], ["quarantine", "list"]])
def test_an_empty_namespace_is_no_error_and_a_versioned_document(cli, arguments: list[str]):
    answer = cli(*arguments, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.document["version"] == 1


async def test_an_id_of_any_characters_is_shown_escaped_and_never_obeyed(cli, redis_client, namespace):
    async with working(redis_client, namespace, instance_id="pod [bold]7") as tracker, tracker.track(STRANGE, function="[green]f"):
        await wait_until(tracker.jobs, description="the job is in flight")
        answer = await cli.within("jobs")
        document = (await cli.within("jobs", "--json")).document
        shown_by_ps = await cli.within("ps")
    assert answer.code == 0
    assert SHOWN in answer.out
    assert "[green]f" in answer.out
    assert "\x1b" not in answer.out
    assert document["jobs"][0]["job_id"] == STRANGE
    assert "pod [bold]7:" in shown_by_ps.out


async def test_the_documents_are_what_the_queries_return(cli, redis_client, namespace):
    async with working(redis_client, namespace, tags=("blue",)) as tracker, tracker.track("42", function="send", timeout=9.0) as job:
        await job.progress(0.25, "a quarter")
        await wait_until(tracker.jobs, description="the job is in flight")
        instances = (await cli.within("ps", "--json")).document["instances"]
        jobs = (await cli.within("jobs", "--json")).document["jobs"]
        (instance,), (found,) = await tracker.instances(), await tracker.jobs()
    moving = {"heartbeat_age", "heartbeat_at", "reason", "busy", "rss_bytes", "loop_lag", "running_for", "jobs_started"}
    assert [without(item, moving) for item in instances] == [without(instance.to_dict(), moving)]
    assert [without(item, moving) for item in jobs] == [without(found.to_dict(), moving)]


def without(document, names):
    return {name: value for name, value in document.items() if name not in names}


async def test_a_job_line_carries_its_progress_and_its_instance(cli, redis_client, namespace):
    async with working(redis_client, namespace) as tracker, tracker.track("42", function="send", job_try=3) as job:
        await job.progress(0.25, "a quarter")
        await wait_until(lambda: has_progress(tracker), description="the progress is written")
        line = next(line for line in (await cli.within("jobs")).out.splitlines() if line.startswith("42 "))
    assert re.search(r"\bsend\s+3\s.*\b25% a quarter\b", line)
    assert f"{tracker.instance_id or ''}" in line
    assert line.endswith("alive")


async def has_progress(tracker):
    return any(job.progress is not None for job in await tracker.jobs())


async def test_jobs_are_chosen_by_function_and_by_the_beginning_of_an_instance(cli, redis_client, namespace):
    async with (
        working(redis_client, namespace, instance_id="web") as tracker,
        tracker.track("1", function="a"),
        tracker.track("2", function="b"),
    ):
        await wait_until(lambda: has_jobs(tracker, 2), description="both jobs are in flight")
        of_a = (await cli.within("jobs", "--json", "--function", "a")).document["jobs"]
        of_web = (await cli.within("jobs", "--json", "--instance", "web")).document["jobs"]
        of_nobody = (await cli.within("jobs", "--json", "--instance", "mail")).document["jobs"]
    assert [job["job_id"] for job in of_a] == ["1"]
    assert sorted(job["job_id"] for job in of_web) == ["1", "2"]
    assert of_nobody == []


async def test_jobs_come_by_the_page_with_how_many_there_are_and_where_the_next_page_begins(cli, redis_client, namespace):
    async with (
        working(redis_client, namespace, instance_id="web") as tracker,
        tracker.track("1", function="a"),
        tracker.track("2", function="b"),
        tracker.track("3", function="a"),
    ):
        await wait_until(lambda: has_jobs(tracker, 3), description="the jobs are in flight")
        first = (await cli.within("jobs", "--limit", "2", "--json")).document
        assert ([job["job_id"] for job in first["jobs"]], first["listed"]) == (["1", "2"], 3)
        last = (await cli.within("jobs", "--limit", "2", "--after", *first["next"], "--instance", "web", "--json")).document
        assert ([job["job_id"] for job in last["jobs"]], last["next"]) == (["3"], None)
        shown = await cli.within("jobs", "--limit", "1", "--function", "a")
    assert shown.out.startswith("1 job of 3 listed in flight\n")
    assert shown.err.rstrip().endswith("--after " + " ".join(first["next"][:1]) + " 1")


async def test_jobs_come_by_the_line_as_they_are_read(cli, redis_client, namespace, monkeypatch):
    monkeypatch.setattr("async_tracker.cli.lists._JOBS_AT_ONCE", 2)
    async with (
        working(redis_client, namespace, instance_id="web") as tracker,
        tracker.track("1", function="a"),
        tracker.track("2", function="b"),
        tracker.track("3", function="a"),
        tracker.track("4", function="a"),
    ):
        await wait_until(lambda: has_jobs(tracker, 4), description="the jobs are in flight")

        async def ids(*options: str) -> list[str]:
            answer = await cli.within("jobs", "--lines", *options)
            assert answer.code == 0
            return [json.loads(line)["job"]["job_id"] for line in answer.out.splitlines()]

        assert await ids() == ["1", "2", "3", "4"]
        assert await ids("--limit", "3", "--instance", "web") == ["1", "2", "3"]
        assert await ids("--function", "b") == ["2"]
        assert await ids("--after", str(tracker.instance_id), "2") == ["3", "4"]
        assert await ids("--instance", "mail") == []


async def leave_orphans(redis_client, namespace: str, *job_ids: str) -> None:
    """Have an instance leave with these jobs in hand."""
    store = Store(Namespace(redis_client, namespace))
    fields = {**encode_description(Description(library="asyncio", host="h", host_id="ab", pid=7), Limits()), "state": "alive"}
    await store.register("left", 1, Connections().encode(), fields)
    runs = [RunRecord(job_id=job_id, instance_id="left", token=job_id, library="asyncio", started_at_ms=1) for job_id in job_ids]
    await store.write("left", 2, started=runs, ended=[])
    await store.leave("left", writes=[], beats=[], batches=[], clock=ServerClock(), lease=None)


async def test_orphans_come_by_the_page(cli, redis_client, namespace):
    await leave_orphans(redis_client, namespace, "1", "2", "3")
    first = (await cli.within("orphans", "--limit", "2", "--json")).document
    assert ([job["job_id"] for job in first["orphans"]], first["listed"]) == (["1", "2"], 3)
    last = (await cli.within("orphans", "--limit", "2", "--after", *first["next"], "--json")).document
    assert ([job["job_id"] for job in last["orphans"]], last["next"]) == (["3"], None)
    shown = await cli.within("orphans", "--limit", "1")
    assert shown.out.startswith("1 orphan of 3 listed\n")
    assert "--after" in shown.err
    assert (await cli.within("orphans", "--json")).document.keys() == {"version", "orphans"}


async def test_instances_come_by_the_page_with_how_many_there_are_and_where_the_next_page_begins(cli, redis_client, namespace):
    async with (
        working(redis_client, namespace, instance_id="a") as first,
        working(redis_client, namespace, instance_id="b") as second,
        working(redis_client, namespace, instance_id="c d") as third,
    ):
        ids = [tracker.instance_id for tracker in (first, second, third)]
        page = (await cli.within("ps", "--limit", "2", "--json")).document
        assert ([item["instance_id"] for item in page["instances"]], page["listed"], page["next"]) == (ids[:2], 3, ids[1])
        assert (page["namespace"], page["role"], "queues" in page) == (namespace, "primary", False)
        last = (await cli.within("ps", "--limit", "2", "--after", page["next"], "--json")).document
        assert ([item["instance_id"] for item in last["instances"]], last["listed"], last["next"]) == (ids[2:], 3, None)
        shown = await cli.within("ps", "--limit", "1", "--after", ids[1])
        rest = await cli.within("ps", "--after", ids[0])
    assert shown.out.startswith(f"1 instance of 3 listed in namespace {namespace} on ")
    assert "queue" not in shown.out.splitlines()[0]
    assert shown.err == f"The next page: --after '{ids[2]}'\n"
    assert [line.split()[0] for line in rest.out.splitlines()[2:] if line] == [ids[1], "c"]
    assert rest.err == ""


async def test_a_page_that_a_replica_gives_says_so(make_cli, make_server):
    server = make_server(tcp=True)
    with redis.Redis(port=server.port) as admin:
        admin.replicaof("127.0.0.1", 1)
    cli = make_cli(url=server.tcp_url, namespace="app")
    for command in ("ps", "jobs", "orphans"):
        shown = await cli.within(command, "--limit", "2")
        assert (shown.code, "This is a replica" in shown.err) == (0, True), shown
        assert (await cli.within(command, "--limit", "2", "--json")).document["role"] == "replica"


async def test_events_are_found_however_far_back_they_are(cli, redis_client, namespace, monkeypatch):
    monkeypatch.setattr("async_tracker.cli.events._AT_ONCE", 2)
    kinds = ["orphaned", "stalled", "orphaned", "", "", "stalled", "orphaned", "stalled", "stalled"]
    for number, kind in enumerate(kinds, 1):
        raw = encode_event(kind) if kind else '{"schema":99}'
        await redis_client.xadd(f"{namespace}:events", {"event": raw}, id=f"{number}-0")

    async def ids(*options: str) -> list[str]:
        document = (await cli.within("events", "--json", *options)).document
        return [event["event_id"].partition("-")[0] for event in document["events"]]

    assert await ids() == ["1", "2", "3", "6", "7", "8", "9"]
    assert await ids("--type", "orphaned") == ["1", "3", "7"]
    assert await ids("--type", "orphaned", "--limit", "2") == ["3", "7"]
    assert await ids("--since", "3-0") == ["6", "7", "8", "9"]
    assert await ids("--since", "3-0", "--type", "stalled", "--limit", "3") == ["6", "8", "9"]


async def has_jobs(tracker, number):
    return len(await tracker.jobs()) == number


async def test_long_ids_are_whole_where_no_terminal_is(cli, redis_client, namespace):
    long_id = "x" * 300
    async with working(redis_client, namespace, instance_id="pod-" + "y" * 200) as tracker, tracker.track(long_id, function="z" * 100):
        await wait_until(tracker.jobs, description="the job is in flight")
        answer = await cli.within("jobs", env={"COLUMNS": "40"})
        instance_id = tracker.instance_id
    line = next(line for line in answer.out.splitlines() if line.startswith("xxx"))
    assert long_id in line
    assert instance_id in line


@pytest.mark.parametrize("columns", [200, 40])
async def test_on_a_terminal_ids_are_whole_and_markup_is_shown_not_obeyed(cli, redis_client, namespace, columns):
    async with working(redis_client, namespace, instance_id="p[red]") as tracker, tracker.track(STRANGE, function="[green]f"):
        await wait_until(tracker.jobs, description="the job is in flight")
        jobs = await anyio.to_thread.run_sync(cli.on_terminal, columns, "jobs")
        instance_id = tracker.instance_id
    assert max(map(len, jobs.splitlines())) <= columns
    for whole in (SHOWN, "[green]f", instance_id):
        assert whole in jobs


async def test_two_namespaces_do_not_see_each_other(cli, make_cli, redis_client, redis_url, namespace):
    async with working(redis_client, namespace):
        assert len((await cli.within("ps", "--json")).document["instances"]) == 1
        other = make_cli(url=redis_url, namespace=f"{namespace}_other")
        assert (await other.within("ps", "--json")).document["instances"] == []


async def test_a_record_that_cannot_be_read_is_named_and_skipped(cli, redis_client, namespace):
    async with working(redis_client, namespace) as tracker, tracker.track("good"), tracker.track("bad"):
        await wait_until(lambda: has_jobs(tracker, 2), description="both jobs are in flight")
        await redis_client.set(f"{namespace}:job:bad", "rubbish")
        answer = await cli.within("jobs")
        document = (await cli.within("ps", "--json")).document
    assert answer.code == 0
    assert "job:bad" in answer.err
    assert [line.split()[0] for line in answer.out.splitlines()[2:] if line] == ["good"]
    assert document["corrupt"] == ["job:bad"]


async def test_the_queues_of_workers_are_shown_with_depth_and_oldest_wait(cli, workers, redis_url, namespace):
    pool = await create_pool(RedisSettings.from_dsn(redis_url))
    queue = f"arq:queue:{namespace}"
    env = {"TEST_REDIS_URL": redis_url, "TRACKER_NAMESPACE": namespace, "TEST_QUEUE": queue}
    worker = workers.start("tests.cli.app.WorkerSettings", env=env)
    await pool.enqueue_job("hold", 60.0, _job_id="held", _queue_name=queue)
    await pool.enqueue_job("hold", 60.0, _job_id="later", _queue_name=queue, _defer_by=3600)
    await anyio.to_thread.run_sync(lambda: worker.wait_for_output("holding held"))
    (found,) = (await cli.within("ps", "--json")).document["queues"]
    await pool.aclose()
    assert (found["queue"], found["library"], found["depth"], found["due"]) == (queue, "arq", 2, 1)
    assert found["oldest_wait"] >= 0


@pytest.mark.parametrize("window", ["31d", "0m", "fortnight"])
async def test_a_window_of_which_nothing_is_kept_ends_with_2_and_says_what_is(cli, window):
    answer = await cli.within("stats", "--window", window)
    assert answer.code == 2
    assert "hours are kept for 30 days" in answer.err or "hours for 30 days" in answer.err


async def test_the_versions_of_a_fleet_stand_beside_their_instances_and_take_no_room_where_there_are_none(cli, redis_client, namespace):
    async with working(redis_client, namespace):
        assert "VERSION" not in (await cli.within("ps")).out
        async with working(redis_client, namespace, version="2026-07-29.1"):
            answer = await cli.within("ps")
            document = (await cli.within("ps", "--json")).document
    assert "VERSION" in answer.out
    assert "2026-07-29.1" in answer.out
    assert sorted(item["version"] or "" for item in document["instances"]) == ["", "2026-07-29.1"]
