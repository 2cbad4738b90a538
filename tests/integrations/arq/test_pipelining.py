"""What arq asks before a claim goes to Redis in one message, and nothing that arq sees is another for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from arq.connections import ArqRedis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, WatchError

from async_tracker.integrations.arq.pipelining import pipelining
from tests.harness.wait import wait_until
from tests.harness.wire import WireProxy
from tests.integrations.arq.cancelling import CancelledAt
from tests.integrations.arq.running import result_of

QUEUE = "arq:queue"
MOST_AWAITS = 20


def claim_key(job_id: str) -> str:
    return f"arq:in-progress:{job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What of an arq worker claims: a pool of one connection, and the class of its pipelines."""

    pool: ArqRedis
    kind: Any

    def pipeline(self) -> Any:
        return self.kind(self.pool.connection_pool, self.pool.response_callbacks, True, None)

    async def look(self, job_id: str, *, queue: str = QUEUE) -> tuple[Any, Any]:
        """Ask what arq asks before it claims a job, and do not claim it."""
        async with self.pipeline() as pipe:
            return await self.ask(pipe, job_id, queue=queue)

    async def ask(self, pipe: Any, job_id: str, *, queue: str = QUEUE) -> tuple[Any, Any]:
        await pipe.watch(claim_key(job_id))
        return await pipe.exists(claim_key(job_id)), await pipe.zscore(queue, job_id)

    async def claim(self, job_id: str) -> list[Any]:
        async with self.pipeline() as pipe:
            await self.ask(pipe, job_id)
            pipe.multi()
            pipe.psetex(claim_key(job_id), 10_000, b"1")
            return list(await pipe.execute())


def asking_kind() -> Any:
    """Make a class of pipelines that has seen no claim."""
    return type("Asking", (Pipeline,), pipelining(Pipeline))


@asynccontextmanager
async def worker_at(url: str, *, kind: Any = None) -> AsyncIterator[Worker]:
    pool = ArqRedis(BlockingConnectionPool.from_url(url, max_connections=1, timeout=5))
    yield Worker(pool=pool, kind=kind or asking_kind())
    await pool.aclose(close_connection_pool=True)


@pytest.fixture
async def worker(wire: WireProxy) -> AsyncIterator[Worker]:
    """A worker that has seen what arq asks: its next claim is pipelined."""
    async with worker_at(wire.url) as worker:
        await worker.look("seen")
        wire.forget_commands()
        yield worker


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each message that this process sends to a Redis."""
    sent: list[str] = []
    send = AbstractConnection.send_packed_command

    async def noted(self: Any, command: Any, *args: Any, **kwargs: Any) -> None:
        sent.append(str(command))
        await send(self, command, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", noted)
    return sent


# what is sent, and what is answered


@pytest.mark.parametrize("is_claimed", [True, False])
@pytest.mark.parametrize("score", [None, 0.0, 17.5])
async def test_arq_is_told_what_redis_says(worker: Worker, redis_client, is_claimed, score):
    if is_claimed:
        await redis_client.set(claim_key("it"), b"1")
    if score is not None:
        await redis_client.zadd(QUEUE, {"it": score})
    assert await worker.look("it") == (int(is_claimed), score)


async def test_redis_sees_the_same_commands_in_the_same_order(worker: Worker, wire: WireProxy):
    await worker.claim("ours")
    ours = list(wire.commands)
    async with worker_at(wire.url, kind=Pipeline) as plain:
        await plain.look("seen")
        wire.forget_commands()
        await plain.claim("ours2")
    assert [[part.replace(b"ours2", b"ours") for part in command] for command in wire.commands] == [list(command) for command in ours]


async def test_the_first_claim_goes_step_by_step_and_each_after_it_in_two_messages(redis_url: str, messages: list[str]):
    async with worker_at(redis_url) as worker:
        await worker.pool.ping()
        counts = []
        for job_id in ("first", "second", "third"):
            messages.clear()
            assert await worker.claim(job_id) == [True]
            counts.append(len(messages))
    assert counts == [4, 2, 2]


async def test_a_claim_that_was_made_meanwhile_is_not_made_again(worker: Worker, redis_client):
    async with worker.pipeline() as pipe:
        assert await worker.ask(pipe, "it") == (0, None)
        await redis_client.set(claim_key("it"), b"another worker's")
        pipe.multi()
        pipe.psetex(claim_key("it"), 10_000, b"1")
        with pytest.raises(WatchError):
            await pipe.execute()
    assert await redis_client.get(claim_key("it")) == b"another worker's"


async def test_a_claim_that_came_and_went_between_watch_and_the_questions_is_noticed(worker: Worker, redis_client):
    """The answer to ``exists`` is as old as the watch: a job that another worker ran in between is not run again."""
    async with worker.pipeline() as pipe:
        await pipe.watch(claim_key("it"))
        await redis_client.set(claim_key("it"), b"another worker's")
        await redis_client.delete(claim_key("it"))
        assert await pipe.exists(claim_key("it")) == 0
        pipe.multi()
        pipe.psetex(claim_key("it"), 10_000, b"1")
        with pytest.raises(WatchError):
            await pipe.execute()


# who asks for something else


async def test_another_queue_is_asked_for_itself_and_from_then_on(worker: Worker, redis_client, messages: list[str]):
    await redis_client.zadd("other", {"it": 3.0})
    assert await worker.look("it", queue="other") == (0, 3.0)
    assert await worker.look("it", queue="other") == (0, 3.0)
    messages.clear()
    assert await worker.look("it", queue="other") == (0, 3.0)
    assert len(messages) == 2  # the three questions, and UNWATCH


async def test_who_does_not_ask_is_not_asked_ahead_for_again(worker: Worker, wire: WireProxy):
    for _ in range(3):
        async with worker.pipeline() as pipe:
            await pipe.watch(claim_key("it"))
    assert wire.command_counts() == {"WATCH": 3, "EXISTS": 1, "ZSCORE": 1, "UNWATCH": 3}


async def test_scores_that_are_asked_for_no_claim_change_nothing(worker: Worker, messages: list[str]):
    async with worker.pipeline() as pipe:
        pipe.zscore("other", "it")
        assert await pipe.execute() == [None]
        await pipe.watch("something")
        assert await pipe.zscore("other", "it") is None
    messages.clear()
    assert await worker.claim("it") == [True]
    assert len(messages) == 2


async def test_who_names_the_queue_in_bytes_is_asked_for_nothing_twice(worker: Worker, wire: WireProxy):
    for _ in range(3):
        assert await worker.look("it", queue=QUEUE.encode()) == (0, None)  # type: ignore[arg-type]
    assert wire.command_counts()["ZSCORE"] == 1 + 3  # the one that was asked ahead, for what arq had asked before


async def test_an_answer_is_given_once_and_asked_for_anew_after(worker: Worker, redis_client):
    async with worker.pipeline() as pipe:
        assert await worker.ask(pipe, "it") == (0, None)
        await redis_client.set(claim_key("it"), b"1")
        await redis_client.zadd(QUEUE, {"it": 5})
        assert (await pipe.exists(claim_key("it")), await pipe.zscore(QUEUE, "it")) == (1, 5.0)


@pytest.mark.parametrize("other", ["something", claim_key("another")])
async def test_the_answers_that_came_with_a_watch_are_void_with_the_next(worker: Worker, redis_client, other):
    async with worker.pipeline() as pipe:
        await pipe.watch(claim_key("it"))
        await redis_client.set(claim_key("it"), b"1")
        await redis_client.zadd(QUEUE, {"it": 5})
        await pipe.watch(other)
        assert (await pipe.exists(claim_key("it")), await pipe.zscore(QUEUE, "it")) == (1, 5.0)


STEPS: dict[str, Callable[[Any], Any]] = {
    "watch": lambda pipe: pipe.watch(claim_key("a")),
    "watch another": lambda pipe: pipe.watch(claim_key("b")),
    "watch both": lambda pipe: pipe.watch(claim_key("a"), claim_key("b")),
    "watch something": lambda pipe: pipe.watch("something"),
    "watch bytes": lambda pipe: pipe.watch(claim_key("a").encode()),
    "unwatch": lambda pipe: pipe.unwatch(),
    "exists": lambda pipe: pipe.exists(claim_key("a")),
    "exists, as bytes": lambda pipe: pipe.exists(bytearray(claim_key("a").encode())),
    "exists another": lambda pipe: pipe.exists(claim_key("b")),
    "exist both": lambda pipe: pipe.exists(claim_key("a"), claim_key("b")),
    "score": lambda pipe: pipe.zscore(QUEUE, "a"),
    "score of another": lambda pipe: pipe.zscore(QUEUE, "b"),
    "score elsewhere": lambda pipe: pipe.zscore("other", "a"),
    "score of nothing": lambda pipe: pipe.zscore("something", "a"),
    "get": lambda pipe: pipe.get("something"),
    "multi": lambda pipe: pipe.multi(),
    "claim": lambda pipe: pipe.psetex(claim_key("a"), 10_000, b"1"),
    "execute": lambda pipe: pipe.execute(),
    "reset": lambda pipe: pipe.reset(),
}


async def told_by(pipe: Any, step: str) -> str:
    """Give what a step says; a pipeline that only lays a command down says itself."""
    try:
        said = STEPS[step](pipe)
        said = await said if asyncio.iscoroutine(said) else said
    except (RedisError, TypeError) as exc:
        return repr(exc)
    return "laid down" if said is pipe else repr(said)


async def played(url: str, kind: Any, steps: list[str]) -> list[str]:
    async with worker_at(url, kind=kind) as worker:
        await worker.pool.flushdb()
        await worker.pool.mset({claim_key("b"): b"1", "something": b"text"})
        await worker.pool.zadd(QUEUE, {"a": 1.5, "b": 2})
        await worker.pool.zadd("other", {"a": 9})
        await worker.look("seen")
        async with worker.pipeline() as pipe:
            told = [await told_by(pipe, step) for step in steps]
        return [*told, await worker.pool.echo("still in step"), repr(sorted(await worker.pool.keys()))]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=12).flatmap(lambda steps: st.sampled_from([steps, ["watch", *steps]])))
async def test_whatever_is_done_with_a_pipeline_it_says_what_redis_pys_own_says(redis_url: str, steps: list[str]):
    assert await played(redis_url, asking_kind(), steps) == await played(redis_url, Pipeline, steps)


# faults


ERRORS = [
    "ERR no such thing",
    "OOM no memory",
    "READONLY a replica",
    "NOPERM this user has no permissions",
    "LOADING in progress",
    "NOAUTH Authentication required.",
    "MASTERDOWN Link with MASTER is down.",
    "BUSY Redis is busy running a script.",
]


async def outcome_of(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except RedisError as exc:
        return type(exc), str(exc)


@pytest.mark.parametrize("command", ["WATCH", "EXISTS", "ZSCORE"])
@pytest.mark.parametrize("error", ERRORS)
async def test_a_refusal_is_told_as_it_would_be_and_the_connection_stays_in_step(worker: Worker, wire: WireProxy, command, error):
    async with worker_at(wire.url, kind=Pipeline) as plain:
        outcomes = []
        for one in (plain, worker):
            wire.reply_with_error(error, to={command}, times=1)
            outcomes.append(await outcome_of(one.claim(f"a job of {one.kind.__name__}")))
            assert await one.pool.echo("still in step") == b"still in step"
            assert await one.claim(f"the next of {one.kind.__name__}") == [True]
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], tuple)


@pytest.mark.parametrize("command", ["WATCH", "EXISTS", "ZSCORE"])
async def test_a_connection_that_is_reset_between_the_answers_is_told_as_it_would_be(worker: Worker, wire: WireProxy, command):
    async with worker_at(wire.url, kind=Pipeline) as plain:
        outcomes = []
        for one in (plain, worker):
            rule = wire.hold({command})
            claiming = asyncio.create_task(outcome_of(one.claim(f"a job of {one.kind.__name__}")))
            await wait_until(lambda rule=rule: rule.caught, description="the command is on its way")
            wire.cut()
            rule.release()
            outcomes.append(await claiming)
            assert await one.claim(f"the next of {one.kind.__name__}") == [True]
    assert outcomes[0][0] is outcomes[1][0]


@pytest.mark.parametrize("answer", [b"+what\r\n", b"*0\r\n", b":-1\r\n", b"$-1\r\n"])
@pytest.mark.parametrize("command", ["EXISTS", "ZSCORE"])
async def test_an_answer_that_nobody_expects_leaves_the_connection_in_step(worker: Worker, wire: WireProxy, command, answer):
    async with worker_at(wire.url, kind=Pipeline) as plain:
        outcomes = []
        for one in (plain, worker):
            wire.reply_with_error("ERR", to={command}, times=1).reply = answer
            try:
                outcomes.append(repr(await one.look("it")))
            except (ValueError, TypeError) as exc:  # what a number is made of
                outcomes.append(repr(exc))
            assert await one.pool.echo("still in step") == b"still in step"
    assert outcomes[0] == outcomes[1]


async def test_a_callback_of_the_users_own_that_fails_leaves_the_connection_in_step(worker: Worker):
    def fails(response: Any, **options: Any) -> Any:
        raise ValueError("no such answer")

    worker.pool.set_response_callback("EXISTS", fails)
    with pytest.raises(ValueError, match="no such answer"):
        await worker.look("it")
    assert await worker.pool.echo("still in step") == b"still in step"


async def test_cancelled_at_any_await_it_leaves_the_connection_in_step_and_nothing_claimed_by_halves(
    worker: Worker, wire: WireProxy, redis_client
):
    wire.delay(to_client=0.002)  # else an answer is there before anybody waits for it
    for number in range(1, MOST_AWAITS):
        await worker.look("seen")
        cancelled = CancelledAt(as_coroutine(worker.claim(f"job {number}")), number)
        task = asyncio.create_task(as_coroutine(cancelled))
        await asyncio.wait([task])
        assert await worker.pool.echo(str(number)) == str(number).encode()
        if not cancelled.was_cancelled:
            break
        assert task.cancelled()
    else:
        pytest.fail(f"the claim had more than {MOST_AWAITS} awaits")
    assert number > 2
    assert task.exception() is None
    assert await redis_client.get(claim_key(f"job {number}")) == b"1"


async def as_coroutine(awaitable: Awaitable[Any]) -> None:
    await awaitable


# in a worker


async def greet(ctx):
    return "hello"


@pytest.mark.parametrize(("is_pipelined", "expected"), [(True, 4), (False, 6)])
async def test_a_job_of_a_tracked_worker_takes_four_round_trips_where_arq_takes_six(
    make_tracker, run_worker, pool, redis_url, messages, is_pipelined, expected
):
    tracker = make_tracker(linger=5.0, pipelined_claims=is_pipelined)
    queued = [await pool.enqueue_job("greet") for _ in range(100)]
    messages.clear()
    worker = await run_worker(tracker.install({"functions": [greet]}), poll_delay=30)
    await wait_until(lambda: worker.worker.jobs_complete == 100, description="all is done")
    assert expected * 100 <= len(messages) < expected * 100 + 100  # start-up, arq's polls, beats, sweeps
    assert [await result_of(job) for job in queued] == ["hello"] * 100
