"""A span for each run: of real arq and dramatiq workers, told to the SDK's exporter in memory."""

import asyncio
import json
import logging
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import dramatiq
import pytest
from arq import Retry, func
from arq.worker import Worker as ArqWorker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker as DramatiqWorker
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from async_tracker import ConfigError, Tracker
from async_tracker.integrations.dramatiq import TrackerMiddleware
from async_tracker.telemetry.spans import Spans
from tests.crash.fleet import SWIFT
from tests.harness.wait import wait_until
from tests.integrations.arq.running import open_pool, result_of, start_worker

Spanned = Callable[[], list[ReadableSpan]]
OWN = {"async_tracker.function", "async_tracker.instance", "async_tracker.run", "async_tracker.try", "async_tracker.outcome"}


def told_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def named(found: list[ReadableSpan], job_id: str) -> list[ReadableSpan]:
    return [span for span in found if (span.attributes or {}).get("messaging.message.id") == job_id]


async def send(ctx: dict[str, Any], _carrier: Any = None) -> str:
    return format(trace.get_current_span().get_span_context().span_id, "x")


async def fail(ctx: dict[str, Any]) -> None:
    raise ValueError("no mail")


async def again(ctx: dict[str, Any]) -> int:
    if ctx["job_try"] == 1:
        raise Retry(defer=0.01)
    return int(ctx["job_try"])


async def hold(ctx: dict[str, Any]) -> str:
    return "done"


@pytest.fixture
async def traced_worker(redis_url: str, namespace: str, make_tracker: Callable[..., Tracker]):
    """An arq worker in this process whose runs are traced, and its pool."""
    queue = f"queue-{uuid.uuid4().hex[:8]}"
    pool = await open_pool(redis_url, queue=queue)
    tracker = make_tracker(telemetry=True, **SWIFT)
    worker = start_worker(tracker.install({"functions": [send, func(fail, max_tries=1), again]}), await open_pool(redis_url, queue=queue))
    yield pool
    await worker.end()
    await pool.aclose()


async def test_each_run_of_arq_is_a_consumer_span_by_the_messaging_conventions(traced_worker, spans: Spanned, numbers):
    queue = traced_worker.default_queue_name
    job = await traced_worker.enqueue_job("send")
    inside = await result_of(job)
    await wait_until(lambda: named(spans(), job.job_id), description="its span has ended")
    (span,) = named(spans(), job.job_id)
    assert (span.name, span.kind, span.parent) == (f"process {queue}", SpanKind.CONSUMER, None)
    assert format(span.context.span_id, "x") == inside, "what the job does is within its span"
    told = dict(span.attributes or {})
    assert {name: told[name] for name in told if name.startswith("messaging.")} == {
        "messaging.system": "arq",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": queue,
        "messaging.message.id": job.job_id,
    }
    assert {name for name in told if name.startswith("async_tracker.")} == OWN
    assert (told["async_tracker.function"], told["async_tracker.try"], told["async_tracker.outcome"]) == ("send", 1, "succeeded")
    points = numbers(queue)
    assert (points["async_tracker.jobs.started", ""].value, points["async_tracker.jobs.finished", "succeeded"].value) == (1, 1)
    assert (points["async_tracker.job.duration", ""].count, points["async_tracker.job.wait", ""].count) == (1, 1)


async def test_a_failure_is_an_error_with_its_type_and_a_retry_is_none(traced_worker, spans: Spanned):
    failing, retried = await traced_worker.enqueue_job("fail"), await traced_worker.enqueue_job("again")
    assert str(await result_of(failing)) == "no mail"
    assert await result_of(retried) == 2
    await wait_until(lambda: len(spans()) == 3, description="all spans have ended")
    (failed,) = named(spans(), failing.job_id)
    assert failed.status.status_code is StatusCode.ERROR
    assert (told_of(failed)["error.type"], told_of(failed)["async_tracker.outcome"]) == ("ValueError", "failed")
    assert [event.name for event in failed.events] == ["exception"]
    first, second = named(spans(), retried.job_id)
    assert [told_of(span)["async_tracker.outcome"] for span in (first, second)] == ["retried", "succeeded"]
    assert {span.status.status_code for span in (first, second)} == {StatusCode.UNSET}


async def test_the_parent_is_the_one_who_enqueued_where_a_carrier_came_along(traced_worker, spans: Spanned):
    carrier: dict[str, str] = {}
    with trace.get_tracer("test").start_as_current_span("request") as request:
        inject(carrier)
    job = await traced_worker.enqueue_job("send", _carrier=carrier)
    await result_of(job)
    await wait_until(lambda: named(spans(), job.job_id), description="its span has ended")
    (span,) = named(spans(), job.job_id)
    assert span.parent is not None
    assert (span.parent.span_id, span.context.trace_id) == (request.get_span_context().span_id, request.get_span_context().trace_id)


async def test_there_is_no_second_span_beside_that_of_another_instrumentation_and_what_we_know_is_added_to_it(
    redis_url: str, make_tracker: Callable[..., Tracker], spans: Spanned
):
    class Instrumented(ArqWorker):
        """As an instrumentation does it that opens its span around all of arq's part."""

        async def run_job(self, job_id: str, score: int) -> None:
            with trace.get_tracer("theirs").start_as_current_span("their span", kind=SpanKind.CONSUMER):
                await super().run_job(job_id, score)

    queue = f"queue-{uuid.uuid4().hex[:8]}"
    pool = await open_pool(redis_url, queue=queue)
    await pool.enqueue_job("send")
    settings: dict[str, Any] = {"functions": [send], "redis_pool": pool, "queue_name": queue, "burst": True, "poll_delay": 0.02}
    worker = Instrumented(**make_tracker(telemetry=True, **SWIFT).install(settings), handle_signals=False)
    await worker.async_run()
    assert worker.on_shutdown is not None
    await worker.on_shutdown(worker.ctx)
    await pool.aclose()
    (span,) = spans()
    assert span.name == "their span"
    assert {name for name in told_of(span) if name.startswith("async_tracker.")} == OWN
    assert not [name for name in told_of(span) if name.startswith("messaging.")]


async def test_the_run_after_a_death_is_linked_to_the_one_that_was_lost(
    workers, redis_url: str, redis_client, namespace: str, make_tracker: Callable[..., Tracker], spans: Spanned
):
    doomed = workers.start("tests.telemetry.app.WorkerSettings", env={"TEST_REDIS_URL": redis_url, "TEST_NAMESPACE": namespace})
    pool = await open_pool(redis_url, queue="traced")
    job = await pool.enqueue_job("hold")
    assert job is not None

    async def written() -> Any:
        return await redis_client.get(f"{namespace}:job:{job.job_id}")

    record = json.loads(await wait_until(written, timeout=60.0, description="the run is written"))
    doomed.kill()
    tracker = make_tracker(telemetry=True, **SWIFT)
    worker = start_worker(tracker.install({"functions": [hold]}), await open_pool(redis_url, queue="traced"))
    assert await result_of(job) == "done"
    await wait_until(lambda: named(spans(), job.job_id), description="its span has ended")
    await worker.end()
    await pool.aclose()
    (span,) = named(spans(), job.job_id)
    (link,) = span.links
    _, trace_id, span_id, _ = record["traceparent"].split("-")
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (trace_id, span_id)
    assert link.attributes == {"async_tracker.link": "lost_run"}
    assert told_of(span)["async_tracker.try"] == 2


async def test_each_run_of_dramatiq_is_a_span_with_the_enqueuer_as_its_parent_and_a_link_to_a_lost_run(
    redis_url: str, redis_client, namespace: str, make_tracker: Callable[..., Tracker], spans: Spanned, numbers
):
    queue = f"queue-{uuid.uuid4().hex[:8]}"
    broker = RedisBroker(url=redis_url)
    broker.add_middleware(TrackerMiddleware(make_tracker(telemetry=True, **SWIFT)))

    @dramatiq.actor(broker=broker, queue_name=queue, max_retries=0)
    def work(fails: bool = False) -> None:
        if fails:
            raise ValueError("no mail")

    carrier: dict[str, Any] = {}
    with trace.get_tracer("test").start_as_current_span("request") as request:
        inject(carrier)
    nested = work.send_with_options(trace_ctx=carrier)
    flat = work.send_with_options(args=(True,), **carrier)
    lost = f"00-{7:032x}-{9:016x}-01"
    await redis_client.hset(f"{namespace}:recoveries:dramatiq:{nested.message_id}", "traceparent", lost)
    worker = DramatiqWorker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    try:
        await wait_until(lambda: len(spans()) == 3, description="both spans have ended, and that of the request")
    finally:
        await anyio.to_thread.run_sync(worker.stop)
        broker.close()
        broker.client.connection_pool.disconnect()
    (well,), (badly,) = named(spans(), nested.message_id), named(spans(), flat.message_id)
    for span in (well, badly):
        assert (span.name, span.kind) == (f"process {queue}", SpanKind.CONSUMER)
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert told_of(span)["messaging.system"] == "dramatiq"
    assert [told_of(span)["async_tracker.outcome"] for span in (well, badly)] == ["succeeded", "failed"]
    assert told_of(badly)["error.type"] == "ValueError"
    assert [(link.context.trace_id, link.context.span_id) for link in well.links] == [(7, 9)]
    assert badly.links == ()
    assert numbers(queue)["async_tracker.jobs.finished", "failed"].value == 1


async def test_plain_asyncio_code_is_traced_too_and_a_span_is_no_parent_of_what_comes_after(make_tracker, spans: Spanned):
    tracker = make_tracker(telemetry=True, **SWIFT)
    async with tracker, tracker.register(queue="mail"):
        async with tracker.track("1", function="send"):
            with trace.get_tracer("test").start_as_current_span("within"):
                pass
        with pytest.raises(asyncio.CancelledError):
            async with tracker.track("2", function="send", queue="mail"):
                raise asyncio.CancelledError
    within, first, second = spans()
    assert within.parent is not None
    assert within.parent.span_id == first.context.span_id
    assert (first.name, second.name, second.parent) == ("process", "process mail", None)
    assert told_of(second)["async_tracker.outcome"] == "cancelled"


def test_a_provider_that_fails_hurts_no_job_and_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    class Run:
        job_id, token, instance_id, library, job_try = "1", "t", "i", "arq", 1
        function: str | None = "f"
        queue: str | None = "q"
        due_at_ms: int | None = 5
        started_at_ms = 9

    spans = Spans()
    broken = TracerProvider().get_tracer("broken")
    monkeypatch.setattr(broken, "start_span", lambda *args, **kwargs: 1 / 0)
    monkeypatch.setattr(spans, "_tracer", broken)
    with caplog.at_level(logging.WARNING, logger="async_tracker"):
        for _ in range(2):
            traced = spans.begin(Run())
            traced.link("rubbish")
            traced.end("succeeded")
    assert [record.message for record in caplog.records] == ["runs cannot be traced: ZeroDivisionError: division by zero"]


OFF = """
import asyncio, linecache, re, sys, threading
from collections import Counter

import dramatiq
from arq import create_pool, Worker
from arq.connections import RedisSettings
from dramatiq.brokers.redis import RedisBroker

from async_tracker import Tracker
from async_tracker.integrations.dramatiq import TrackerMiddleware

RUNS = 40
SPEAKS = re.compile(r"trac(ed|ing|eparent)")
steps, calls = Counter(), Counter()

def enter(frame, event, arg):
    if "async_tracker" not in frame.f_code.co_filename:
        return None
    calls["telemetry" in frame.f_code.co_filename] += 1
    frame.f_trace_opcodes = True
    return step

def step(frame, event, arg):
    if event == "opcode" and SPEAKS.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)):
        steps[library] += 1
    return step

async def noop(ctx): pass

async def in_arq(url):
    pool = await create_pool(RedisSettings.from_dsn(url))
    for _ in range(RUNS):
        await pool.enqueue_job("noop")
    settings = Tracker(namespace="off").install({"functions": [noop], "redis_pool": pool, "burst": True, "poll_delay": 0.02})
    worker = Worker(**settings, handle_signals=False)
    sys.settrace(enter)
    await worker.async_run()
    sys.settrace(None)
    await worker.on_shutdown(worker.ctx)
    assert worker.jobs_complete == RUNS
    await pool.aclose()

async def in_plain_code(url):
    async with Tracker(namespace="off", redis_options={"url": url}) as tracker, tracker.register():
        sys.settrace(enter)
        for number in range(RUNS):
            async with tracker.track(str(number), function="noop"):
                pass
        sys.settrace(None)

def in_dramatiq(url):
    broker, all_done = RedisBroker(url=url), threading.Event()
    broker.add_middleware(TrackerMiddleware(Tracker(namespace="off")))
    done = []
    actor = dramatiq.actor(actor_name="append", broker=broker)(done.append)
    for number in range(RUNS):
        actor.send(number)
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    threading.settrace(enter)
    worker.start()
    threading.settrace(None)
    broker.join("default")
    worker.join()
    worker.stop()
    broker.close()
    assert len(done) == RUNS

library = "arq"
asyncio.run(in_arq(sys.argv[1]))
library = "plain"
asyncio.run(in_plain_code(sys.argv[1]))
library = "dramatiq"
in_dramatiq(sys.argv[1])
assert calls[False] > 3 * RUNS, calls
loaded = [name for name in sys.modules if name.startswith("opentelemetry")]
print(loaded, calls[True], *(steps[name] / RUNS for name in ("arq", "dramatiq", "plain")))
"""
STEPS = {"arq": 1.0, "dramatiq": 16.0, "plain": 20.0}
"""Of the interpreter, on lines that speak of tracing, for each run with telemetry off: a comparison is three, and some are made once."""


def test_off_nothing_of_it_is_loaded_though_workers_have_run_and_a_run_passes_a_comparison_or_two(redis_url: str):
    done = subprocess.run([sys.executable, "-c", OFF, redis_url], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded, called, *steps = done.stdout.split()
    assert (loaded, called) == ("[]", "0")
    assert {name: each for name, each in zip(STEPS, map(float, steps), strict=True) if each > STEPS[name]} == {}


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "async_tracker.telemetry.spans", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r'pip install "async-tracker\[otel\]"'):
        Tracker(telemetry=True)
    assert Tracker().settings.telemetry is False
    with pytest.raises(ConfigError, match="telemetry"):
        Tracker(telemetry="yes")
