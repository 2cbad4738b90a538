"""The API: the documents, their pages, their errors, and that the description of it is true."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis import checks

from async_tracker import Tracker
from async_tracker.web import screens
from async_tracker.web.document import openapi
from tests.crash.fleet import SWIFT
from tests.harness.wait import wait_until
from tests.web.conftest import lets_act, lets_read

DESCRIBED = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = 6


async def with_jobs(stack: AsyncExitStack, tracker: Tracker, *job_ids: str, **options: Any) -> str:
    """Have an instance with these jobs in flight until the stack is closed."""
    instance_id = await stack.enter_async_context(tracker.register(queue="mail", concurrency=20, functions=["send_email"]))
    for job_id in job_ids:
        await stack.enter_async_context(tracker.track(job_id, function="send_email", queue="mail", **options))
    await wait_until(lambda: all_written(tracker, job_ids), description="the jobs are written")
    return instance_id


async def all_written(tracker: Tracker, job_ids: tuple[str, ...]) -> bool:
    return {job.job_id for job in await tracker.jobs()} >= set(job_ids)


async def test_the_documents_are_those_of_the_tracker(mount, tracker):
    async with AsyncExitStack() as stack:
        instance_id = await with_jobs(stack, tracker, "42", timeout=30.0)
        client = mount(authorize=lets_read)
        snapshot = (await client.get("/api/v1/snapshot")).json()
        assert snapshot["version"] == 1
        assert {"instances", "jobs", "orphans", "taken_at", "duration", "corrupt", "namespace", "at_ms"} <= snapshot.keys()
        instances = (await client.get("/api/v1/instances")).json()
        assert (instances["total"], instances["instances"][0]["instance_id"]) == (1, instance_id)
        one = (await client.get(f"/api/v1/instances/{instance_id}")).json()
        assert [job["job_id"] for job in one["jobs"]] == ["42"]
        job = (await client.get("/api/v1/jobs/42")).json()["job"]
        assert (job["function"], job["timeout"], job["instance_id"]) == ("send_email", 30.0, instance_id)
        for name in ("orphans", "quarantine", "functions", "queues", "events"):
            assert (await client.get(f"/api/v1/{name}")).status_code == 200, name
        assert (await client.get("/api/v1/doctor")).json()["healthy"] is True


async def test_a_list_comes_in_pages_sorted_by_the_server_with_exact_counts(mount, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, *(f"job-{number:02}" for number in range(12)))
        client = mount(authorize=lets_read)
        seen: list[str] = []
        cursor: str | None = "0"
        while cursor is not None:
            page = (await client.get("/api/v1/jobs", params={"limit": 5, "cursor": cursor, "sort": "-id"})).json()
            assert (page["total"], page["cut"]) == (12, False)
            seen += [job["job_id"] for job in page["jobs"]]
            cursor = page["next_cursor"]
        assert seen == [f"job-{number:02}" for number in reversed(range(12))]


async def test_of_very_many_only_so_many_are_sorted_and_the_answer_says_so_with_exact_counts(mount, tracker, monkeypatch):
    monkeypatch.setattr(screens, "SORTED_AT_MOST", 3)
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, *(f"job-{number}" for number in range(5)))
        client = mount(authorize=lets_read)
        for sort, shown, cut in (("started", 5, False), ("-started", 5, False), ("-id", 3, True)):
            page = (await client.get("/api/v1/jobs", params={"sort": sort})).json()
            assert (page["total"], len(page["jobs"]), page["cut"], page["next_cursor"]) == (5, shown, cut, None), sort


async def test_a_stream_follows_a_hundred_rows_at_most(mount):
    client = mount(authorize=lets_read)
    for limit, status in ((100, 200), (101, 400)):
        answer = await client.get("/api/v1/live", params={"topic": f"instances?limit={limit}", "once": "1"})
        assert answer.status_code == status, answer.text


async def test_what_is_not_known_comes_last_whichever_way_a_list_is_sorted(mount, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "plain")
        await with_jobs_beside(stack, tracker, {"short": 5.0, "long": 600.0})
        client = mount(authorize=lets_read)
        up, down = ["short", "long", "plain"], ["long", "short", "plain"]
        for sort, ids in (("timeout", up), ("-timeout", down), ("deadline", up), ("-deadline", down)):
            assert [job["job_id"] for job in (await client.get("/api/v1/jobs", params={"sort": sort})).json()["jobs"]] == ids


async def with_jobs_beside(stack: AsyncExitStack, tracker: Tracker, timeouts: dict[str, float]) -> None:
    for job_id, timeout in timeouts.items():
        await stack.enter_async_context(tracker.track(job_id, function="send_email", timeout=timeout))
    await wait_until(lambda: all_written(tracker, tuple(timeouts)), description="the jobs are written")


async def test_filters_are_understood_and_what_is_not_says_what_could_be_asked(mount, tracker):
    async with AsyncExitStack() as stack:
        instance_id = await with_jobs(stack, tracker, "alpha", "beta", timeout=0.001)
        client = mount(authorize=lets_read)

        async def ids(**params: str) -> list[str]:
            answer = await client.get("/api/v1/jobs", params=params)
            assert answer.status_code == 200, answer.text
            return sorted(job["job_id"] for job in answer.json()["jobs"])

        assert await ids(q="ALP") == ["alpha"]
        assert await ids(function="send_email", queue="mail", instance=instance_id, overdue="1") == ["alpha", "beta"]
        assert await ids(older="3600") == []
        for params in (
            {"colour": "red"},
            {"sort": "colour"},
            {"limit": "0"},
            {"limit": "10001"},
            {"cursor": "-1"},
            {"older": "soon"},
            {"overdue": "yes"},
        ):
            answer = await client.get("/api/v1/jobs", params=params)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request"), params
        assert "it takes" in (await client.get("/api/v1/jobs", params={"colour": "red"})).json()["error"]["message"]
        assert (await client.get("/api/v1/events", params={"since": "yesterday"})).status_code == 400


async def test_what_is_not_there_is_a_404_and_a_wrong_method_a_405(mount):
    client = mount(authorize=lets_act)
    for path in ("/api/v1/instances/no:1:such", "/api/v1/jobs/none", "/api/v1/nothing", "/api/v2/snapshot"):
        assert (await client.get(path)).json()["error"]["code"] == "not_found", path
    answer = await client.request("DELETE", "/api/v1/jobs", headers={"sec-fetch-site": "same-origin"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert (await client.head("/api/v1/jobs")).status_code == 200


async def test_redis_away_is_a_503_that_says_so(mount, make_tracker, wire):
    client = mount(of=make_tracker(redis_options={"url": wire.url, "socket_connect_timeout": 0.5}), authorize=lets_read)
    wire.refuse()
    answer = await client.get("/api/v1/snapshot")
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (503, "redis_unavailable", "2")


async def test_any_number_of_programs_costs_redis_the_same(mount, tracker, redis_client):
    client = mount(authorize=lets_read)

    async def spent_on(askers: int) -> tuple[int, float]:
        """Have that many ask at once; gives the commands that took, our own included, and the seconds."""
        await asyncio.sleep(1.1)  # what was read before is fresh no more
        before, began = (await redis_client.info("stats"))["total_commands_processed"], time.monotonic()
        answers = await asyncio.gather(*(client.get("/api/v1/snapshot") for _ in range(askers)))
        assert {answer.status_code for answer in answers} == {200}
        took = time.monotonic() - began
        return (await redis_client.info("stats"))["total_commands_processed"] - before, took

    await client.get("/api/v1/snapshot")
    one, _ = await spent_on(1)
    many, took = await spent_on(50)
    assert many <= one * (1 + took / 0.9), "one reading, and where the machine is busy another for each second"


async def test_ids_that_are_markup_paths_or_no_text_come_through(mount, tracker):
    ids = ["<script>alert(1)</script>", "a/b/../c", "100%25", "é ☃", "x" * 300, "quarantine/retry"]
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, *ids)
        client = mount(authorize=lets_read)
        listed = (await client.get("/api/v1/jobs")).json()["jobs"]
        assert {job["job_id"] for job in listed} == set(ids)
        for job_id in ids:
            answer = await client.get(f"/api/v1/jobs/{quote(job_id, safe='')}")
            assert (answer.status_code, answer.json()["job"]["job_id"]) == (200, job_id)


async def test_actions_are_carried_out_and_each_leaves_an_event_that_says_who(fleet, mount):
    settings = {**SWIFT, "max_recoveries": 0}
    await fleet.start_ready(tracker=settings)
    await fleet.start_ready(tracker=settings, worker={"queue_name": "elsewhere"})
    await fleet.pool.enqueue_job("pill", _job_id="pill-1")
    await wait_until(fleet.tracker.quarantined, timeout=30.0, description="the pill is quarantined")

    def anna(request: Any) -> str:
        return "anna"

    client = mount(of=fleet.tracker, authorize=lets_act, identify=anna)
    same_origin = {"sec-fetch-site": "same-origin"}
    assert (await client.post("/api/v1/quarantine/other/retry", headers=same_origin)).status_code == 404
    assert (await client.post("/api/v1/quarantine/pill-1/drop", headers=same_origin, json={"a": 1})).status_code == 400
    answer = await client.post("/api/v1/quarantine/pill-1/drop", headers=same_origin)
    assert answer.json() == {"version": 1, "dropped": ["pill-1"]}
    assert await fleet.tracker.quarantined() == []
    assert (await client.post("/api/v1/recover", headers=same_origin, json={"dry_run": True})).json()["recoveries"] == []
    assert (await client.post("/api/v1/recover", headers=same_origin)).json()["dry_run"] is False
    events = (await client.get("/api/v1/events", params={"type": "action"})).json()["events"]
    told = [(event["details"]["action"], event["details"]["by"], event["details"]["peer"], event["details"]["outcome"]) for event in events]
    assert told == [("recover", "anna", "127.0.0.1", "done"), ("drop", "anna", "127.0.0.1", "done")]
    assert events[1]["job_id"] == "pill-1"


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"dry_run": 1}', b'{"dry": true}', b"\xff", b"[" * 5000])
async def test_a_body_that_is_none_is_refused(mount, body: bytes):
    answer = await mount(authorize=lets_act).post("/api/v1/recover", content=body, headers={"sec-fetch-site": "same-origin"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


async def test_a_body_that_is_too_long_is_refused(mount):
    answer = await mount(authorize=lets_act).post("/api/v1/recover", content=b" " * 100_001, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 422


@pytest.mark.timeout(300)  # some hundred questions
def test_the_description_holds_for_whatever_is_asked(serve):
    """Nothing that the document does not describe, and no 500, whatever schemathesis makes up."""
    served = serve("--allow-actions")
    headers = {"authorization": f"Bearer {served.token}"}
    document = httpx.get(f"{served.base}api/v1/openapi.json", headers=headers).json()
    schema = schemathesis.openapi.from_dict(document)
    described = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]
        if operation.path == "/api/v1/live":
            continue
        described += 1

        @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(case=operation.as_strategy())
        def holds(case: Any) -> None:
            response = case.call(base_url=served.base.rstrip("/"), headers=headers, timeout=20)
            assert response.status_code != 500, response.text
            case.validate_response(response, checks=DESCRIBED)

        holds()
    assert described == len(document["paths"]) - 1


def test_the_description_names_each_address_that_answers():
    document = openapi()
    json.dumps(document)
    for name in ("snapshot", "instances", "jobs", "orphans", "quarantine", "functions", "queues", "events", "doctor", "live"):
        assert f"/api/v1/{name}" in document["paths"]
