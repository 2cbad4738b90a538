"""Orders and their answers: how they reach an instance without a connection or a command of their own, and what meets them on the way."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from async_tracker import Event, Tracker
from async_tracker.control.control import Control
from async_tracker.control.orders import Done, Order
from async_tracker.instance.order_taker import Handler, OrderTaker
from async_tracker.records import OrderOutcome
from async_tracker.store.commands import Store
from async_tracker.store.scripts import SCRIPTS
from async_tracker.store.writes import Beat
from tests.crash.fleet import script_call
from tests.harness.inside import runtime_of
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

SLOW_BEAT: dict[str, Any] = {"heartbeat_interval": 30.0, "heartbeat_ttl": 90.0, "silence_limit": 90.0}


class Wave:
    """A handler that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Order] = []
        self.undone: list[Order] = []

    async def carry_out(self, order: Order) -> Done:
        self.asked.append(order)
        return Done(says="waved", details=dict(order.arguments))

    async def undo(self, order: Order) -> Done:
        self.undone.append(order)
        return Done()

    def handler(self, **how: Any) -> Handler:
        return Handler(carry_out=self.carry_out, undo=self.undo, **how)


class Answers:
    """Where the watchdog's answers are sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def answer(self, instance_id: str, order_id: str, answer: str, event: str) -> str:
        self.sent.append((order_id, answer))
        return ""


@contextmanager
def taking(kind: str, handler: Handler) -> Iterator[None]:
    """Have each instance that is made in this block take orders of this kind, from before it registers."""
    make = OrderTaker.__init__

    def made(self: OrderTaker, **parts: Any) -> None:
        make(self, **parts)
        self.handle(kind, handler)

    OrderTaker.__init__ = made  # type: ignore[method-assign]
    try:
        yield
    finally:
        OrderTaker.__init__ = make  # type: ignore[method-assign]


@asynccontextmanager
async def registered(tracker: Tracker) -> AsyncIterator[str]:
    """Be an instance that Redis knows, however long that takes on a busy machine."""
    async with tracker.register() as instance_id:
        await wait_until(lambda: runtime_of(tracker).registration.is_registered, timeout=30.0, description="it is registered")
        yield instance_id


async def control_of(tracker: Tracker, heard: list[str] | None = None) -> Control:
    async with tracker.redis() as proxy:
        return Control(Store(proxy), by="ann@web-1", on_event=(heard if heard is not None else []).append)


async def ask(tracker: Tracker, instance_id: str, kind: str = "wave", *, beyond: float = 60.0, **how: Any) -> Any:
    (answer,) = await (await control_of(tracker)).ask([instance_id], kind, beyond=beyond, **how)
    return answer


async def test_an_idle_instance_hears_with_its_next_beat_and_answers_with_the_one_after(make_tracker):
    wave, tracker = Wave(), make_tracker(heartbeat_interval=0.5)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            answer = await ask(tracker, instance_id, arguments={"to": "the crowd"})
    assert (answer.order, answer.instance_id, answer.outcome, answer.says) == ("wave", instance_id, OrderOutcome.DONE, "waved")
    assert answer.details == {"to": "the crowd"}
    assert [(order.kind, order.by) for order in wave.asked] == [("wave", "ann@web-1")]


async def test_a_busy_instance_hears_with_its_next_write(make_tracker):
    wave, tracker = Wave(), make_tracker(watchdog=False, **SLOW_BEAT)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            asked = asyncio.create_task(ask(tracker, instance_id))

            async def works_until_it_hears() -> bool:
                async with tracker.track("42"):
                    await asyncio.sleep(0.1)
                return bool(wave.asked)

            await wait_until(works_until_it_hears, description="the order came with a write")
            assert (await asked).outcome is OrderOutcome.DONE


async def test_orders_cost_no_connection_and_no_command_more_than_the_answer(wire, redis_client, namespace, redis_url):
    """Counted on the wire of the instance: its beats are as many as they would be, and one script for each answer comes on top."""

    def scripts_sent() -> dict[str, int]:
        names = {script.sha.encode(): name for name, script in SCRIPTS.items()}
        names |= {script.text.encode(): name for name, script in SCRIPTS.items()}
        found: dict[str, int] = {}
        for command in wire.commands:
            name = names.get(bytes(command[1]), "another") if command[0].startswith(b"EVAL") else command[0].decode()
            found[name] = found.get(name, 0) + 1
        return found

    for script in SCRIPTS.values():
        await redis_client.script_load(script.text)
    wave = Wave()
    asking = Tracker(namespace=namespace, redis_options={"url": redis_url})
    tracker = Tracker(namespace=namespace, redis_options={"url": wire.url}, **{**QUIET, "heartbeat_interval": 0.5})
    with taking("wave", wave.handler()):
        async with asking, tracker, registered(tracker) as instance_id:
            connected = runtime_of(tracker).link.generation
            await ask(asking, instance_id)
            began = time.monotonic()
            wire.forget_commands()
            for _ in range(5):
                assert (await ask(asking, instance_id)).outcome is OrderOutcome.DONE
            sent, seconds = scripts_sent(), time.monotonic() - began
            assert sent.pop("answer") == 5
            sent.pop("count", None)
            beats = sent.pop("beat")
            assert sent == {}
            assert runtime_of(tracker).link.generation == connected
    # Each order calls for two beats, to say that it was heard and to carry the answer; beside them there are those that are due anyway.
    assert beats <= 2 * 5 + seconds / (0.9 * 0.5) + 1


async def test_the_first_order_makes_the_instance_beat_oftener(make_tracker, redis_client, namespace):
    wave, tracker = Wave(), make_tracker(watchdog=False, **SLOW_BEAT)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            asked = asyncio.create_task(ask(tracker, instance_id))

            async def is_placed() -> bool:
                return bool(await redis_client.hexists(f"{namespace}:instance:{instance_id}", "orders"))

            await wait_until(is_placed, description="the order stands in its hash")
            runtime_of(tracker).heartbeat.hurry()  # in place of the beat that is due in half a minute
            assert (await asked).outcome is OrderOutcome.DONE
            assert (await ask(tracker, instance_id)).outcome is OrderOutcome.DONE  # with nothing to hurry it


async def test_an_order_that_is_carried_out_while_a_beat_is_under_way_is_answered_after_the_beat_that_shows_it(
    make_tracker, redis_client, namespace, monkeypatch, wire
):
    said: list[str] = []
    beat, answer = Store.beat, Store.answer

    async def noted_beat(self: Store, instance_id: str, sent: Beat) -> Any:
        said.append(str(sent.fields.get("state", "as before")))
        return await beat(self, instance_id, sent)

    async def noted_answer(self: Store, *told: Any) -> str:
        said.append("answered")
        return await answer(self, *told)

    monkeypatch.setattr(Store, "beat", noted_beat)
    monkeypatch.setattr(Store, "answer", noted_answer)
    tracker = make_tracker(redis_options={"url": wire.url}, watchdog=False, **SLOW_BEAT)
    async with registered(tracker) as instance_id:
        runtime = runtime_of(tracker)
        asked = asyncio.create_task(ask(tracker, instance_id, "quiet"))

        async def is_placed() -> bool:
            return bool(await redis_client.hexists(f"{namespace}:instance:{instance_id}", "orders"))

        await wait_until(is_placed, description="the order stands in its hash")
        lines = await runtime.store.open_orders(instance_id)
        held = wire.hold(script_call(SCRIPTS["beat"]))
        runtime.heartbeat.hurry()
        await wait_until(lambda: held.caught, description="a beat is under way")
        runtime.orders.hear(lines, int(runtime.clock.now_ms()))  # as in the reply to a write
        await wait_until(lambda: runtime.registration.is_quiet, description="the order is carried out")
        for _ in range(100):
            await asyncio.sleep(0)
        held.release()
        assert (await asked).outcome is OrderOutcome.DONE
    assert "quiet" in said[: said.index("answered")]


async def test_an_instance_is_given_its_own_interval_and_two_seconds_to_answer(make_tracker, redis_client, namespace):
    tracker = make_tracker(**QUIET)  # which beats once a minute
    async with registered(tracker) as instance_id:
        key = f"{namespace}:instance:{instance_id}"

        async def server_ms() -> int:
            seconds, micros = await redis_client.time()
            return int(seconds) * 1000 + int(micros) // 1000

        before = await server_ms()
        asked = asyncio.create_task(make_tracker().quiet(instance_id))
        line = await wait_until(lambda: redis_client.hget(key, "orders"), description="the order stands in its hash")
        assert before + 62_000 <= int(line.split(b" ")[1]) <= await server_ms() + 62_000
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


async def test_an_unknown_id_and_one_that_has_left_are_not_found(make_tracker):
    wave, tracker = Wave(), make_tracker(heartbeat_interval=0.5)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            pass
        for name in ("host:1:nobody", instance_id):
            answer = await ask(tracker, name)
            assert (answer.outcome, answer.instance_id) == (OrderOutcome.NOT_FOUND, name)


async def test_what_an_instance_does_not_take_is_refused_at_once(make_tracker):
    tracker = make_tracker(**SLOW_BEAT)
    async with registered(tracker) as instance_id:
        answer = await ask(tracker, instance_id)
        assert answer.outcome is OrderOutcome.REFUSED


async def test_what_is_not_answered_is_taken_back_and_not_done_later(make_tracker, redis_client, namespace):
    wave, tracker = Wave(), make_tracker(heartbeat_interval=0.2, heartbeat_ttl=60.0)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            async with runtime_of(tracker).pen.lock:  # it neither beats nor writes
                answer = await ask(tracker, instance_id, beyond=0.1)
                assert answer.outcome is OrderOutcome.UNANSWERED
            await runtime_of(tracker).registration.beat()
            await runtime_of(tracker).registration.beat()
            assert wave.asked == []
            assert not await redis_client.hexists(f"{namespace}:instance:{instance_id}", "orders")


async def test_an_order_whose_caller_has_died_is_not_begun_after_its_time(make_tracker, redis_client, namespace):
    wave, tracker = Wave(), make_tracker(**QUIET)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            line = '5f 1 {"kind":"wave","by":"ann@web-1","arguments":{}}'
            await redis_client.hset(f"{namespace}:instance:{instance_id}", "orders", line)
            await runtime_of(tracker).registration.beat()

            async def is_gone() -> bool:
                return not await redis_client.hexists(f"{namespace}:instance:{instance_id}", "orders")

            await wait_until(is_gone, description="it was answered as too late")
            assert wave.asked == []
            (event,) = [event for event in await tracker.recent_events() if event.type == "control"]
            assert (event.details["outcome"], event.details["order"]) == ("refused", "wave")


async def test_a_caller_that_is_cancelled_takes_its_order_back(make_tracker, redis_client, namespace):
    wave, tracker = Wave(), make_tracker(**QUIET)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            key = f"{namespace}:instance:{instance_id}"
            asked = asyncio.create_task(ask(tracker, instance_id))

            async def is_placed() -> bool:
                return bool(await redis_client.hexists(key, "orders"))

            await wait_until(is_placed, description="the order stands in its hash")
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert not await is_placed()


async def test_an_answer_that_comes_too_late_is_undone(make_tracker):
    """The caller was told that the order was taken back, so it must not have come true."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    wave, tracker = Wave(), make_tracker(heartbeat_interval=0.2, heartbeat_ttl=60.0)

    async def dawdle(order: Order) -> Done:
        begun.set()
        await go_on.wait()
        return await wave.carry_out(order)

    with taking("wave", Handler(carry_out=dawdle, undo=wave.undo)):
        async with registered(tracker) as instance_id:
            asked = asyncio.create_task(ask(tracker, instance_id))
            await begun.wait()
            asked.cancel()  # which takes it back
            with pytest.raises(asyncio.CancelledError):
                await asked
            go_on.set()
            await wait_until(lambda: wave.undone, description="it was undone")
            assert wave.undone == wave.asked


async def test_where_its_answer_is_refused_what_it_did_is_undone_and_it_beats_on(make_tracker, wire):
    """Redis refuses the answer, so its caller is told that none came."""
    wave, tracker = Wave(), make_tracker(redis_options={"url": wire.url}, heartbeat_interval=0.2, heartbeat_ttl=60.0)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            refusing = wire.reply_with_error("NOPERM no permission", to=script_call(SCRIPTS["answer"]))
            asked = asyncio.create_task(ask(make_tracker(), instance_id))
            await wait_until(lambda: wave.undone, description="it was undone")
            assert wave.undone == wave.asked
            assert not asked.done()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            refusing.remove()
            assert (await ask(make_tracker(), instance_id)).outcome is OrderOutcome.DONE
            assert len(wave.undone) == 1


async def test_a_quiet_or_a_resume_that_was_taken_back_after_it_was_done_is_undone(make_tracker, wire):
    """Its answer is held up for so long that the caller has gone. What an earlier order had made of the instance stays."""
    tracker = make_tracker(redis_options={"url": wire.url}, heartbeat_interval=0.2, heartbeat_ttl=60.0)

    async def taken_back(kind: str, instance_id: str) -> None:
        held = wire.hold(script_call(SCRIPTS["answer"]))
        asked = asyncio.create_task(ask(make_tracker(), instance_id, kind))
        await wait_until(lambda: held.caught, description="the answer is under way")
        assert tracker.is_quiet == (kind == "quiet")
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        held.release()

    async with registered(tracker) as instance_id:
        await taken_back("quiet", instance_id)
        await wait_until(lambda: not tracker.is_quiet, description="it takes jobs again")
        assert (await ask(make_tracker(), instance_id, "quiet")).outcome is OrderOutcome.DONE
        await taken_back("resume", instance_id)
        await wait_until(lambda: tracker.is_quiet, description="it is quiet again")
        await taken_back("quiet", instance_id)
        answer = await ask(make_tracker(), instance_id, "quiet")
        assert answer.says.startswith("it was quiet before")
        assert tracker.is_quiet


async def test_an_answer_so_late_that_nothing_tells_of_its_order_any_more_is_undone(make_tracker):
    """The instance was cut off for minutes: its caller has taken the order back, and that is forgotten as well."""
    wave, tracker = Wave(), make_tracker(**QUIET)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            runtime = runtime_of(tracker)
            line = f'5f {runtime.clock.now_ms() - 60_000} {{"kind":"wave","by":"ann","arguments":{{}}}}'
            runtime.orders.hear(line, 0)  # it was begun in time
            await wait_until(lambda: wave.undone, description="it was undone")
            assert wave.undone == wave.asked

            async def is_told() -> bool:
                stored = (await runtime.store.answers({instance_id: "5f"}))[instance_id][0]
                return stored is not None and "so it was undone" in stored

            await wait_until(is_told, description="that it was undone is told")
    told = [event.details["outcome"] for event in await make_tracker().recent_events() if event.type == "control"]
    assert told == ["unanswered"]


async def test_a_caller_waits_on_while_redis_is_away(make_tracker, wire):
    may_end, begun = asyncio.Event(), asyncio.Event()

    async def dawdle(order: Order) -> Done:
        begun.set()
        await may_end.wait()
        return Done(says="waved")

    tracker = make_tracker(heartbeat_interval=0.2, heartbeat_ttl=60.0)
    with taking("wave", Handler(carry_out=dawdle)):
        async with registered(tracker) as instance_id:
            asked = asyncio.create_task(ask(make_tracker(redis_options={"url": wire.url}), instance_id))
            await begun.wait()
            wire.refuse()
            await asyncio.sleep(0.8)  # a few looks for an answer fail
            assert not asked.done()
            wire.accept()
            may_end.set()
            assert (await asked).says == "waved"


async def test_what_is_being_carried_out_ends_with_its_instance(make_tracker):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def dawdle(order: Order) -> Done:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Done()

    tracker = make_tracker(heartbeat_interval=0.5)
    with taking("wave", Handler(carry_out=dawdle)):
        async with registered(tracker) as instance_id:
            asked = asyncio.create_task(ask(make_tracker(), instance_id))
            await begun.wait()
        assert ended.is_set()
        assert (await asked).outcome is OrderOutcome.GONE


async def test_a_handler_that_fails_is_answered_and_the_worker_goes_on(make_tracker, caplog):
    async def fail(order: Order) -> Done:
        raise ValueError("no hands")

    tracker = make_tracker(heartbeat_interval=0.5)
    with taking("wave", Handler(carry_out=fail)):
        async with registered(tracker) as instance_id:
            answer = await ask(tracker, instance_id)
            assert (answer.outcome, answer.says) == (OrderOutcome.FAILED, "ValueError: no hands")
            async with tracker.track("42"):
                pass


async def test_an_instance_that_ends_before_it_answers_is_gone(make_tracker):
    tracker = make_tracker(**QUIET)
    with taking("wave", Wave().handler()):
        async with registered(tracker) as instance_id:
            asked = asyncio.create_task(ask(make_tracker(), instance_id))
            await asyncio.sleep(0)
            runtime = runtime_of(tracker)

            async def is_placed() -> bool:
                return bool(await runtime.store.open_orders(instance_id))

            await wait_until(is_placed, description="the order stands in its hash")
            await runtime.store.redis.set(f"tombstone:{instance_id}", 1, ex=60)  # as at its death
            assert (await asked).outcome is OrderOutcome.GONE


async def test_an_order_that_the_server_has_lost_is_unanswered_and_can_be_given_again(make_tracker, redis_client):
    """A failover to a server that has not got it, or a restart without data: the instance is back, and was not asked."""
    wave, tracker = Wave(), make_tracker(heartbeat_interval=0.5)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            runtime = runtime_of(tracker)
            async with runtime.pen.lock:  # it neither beats nor writes
                asked = asyncio.create_task(ask(make_tracker(), instance_id, beyond=0.5))

                async def is_placed() -> bool:
                    return bool(await runtime.store.open_orders(instance_id))

                await wait_until(is_placed, description="the order stands in its hash")
                await redis_client.flushdb()
            assert (await asked).outcome is OrderOutcome.UNANSWERED
            await wait_until(lambda: runtime.store.is_registered(instance_id), timeout=30.0, description="it is registered again")
            assert wave.asked == []
            assert (await ask(make_tracker(), instance_id)).outcome is OrderOutcome.DONE


@pytest.mark.parametrize("goes_over", [True, False])
async def test_an_order_goes_over_to_the_new_id_of_an_instance_unless_its_kind_does_not(make_tracker, goes_over: bool):
    wave, tracker = Wave(), make_tracker(**{**QUIET, "heartbeat_interval": 30.0})
    with taking("wave", wave.handler(goes_over=goes_over)):
        async with registered(tracker) as instance_id:
            runtime = runtime_of(tracker)
            store = runtime.store
            await store.redis.hset(f"instance:{instance_id}", "orders", f'5f {2**52} {{"kind":"wave","by":"ann","arguments":{{}}}}')
            await store.redis.zrem("instances", instance_id)
            await store.redis.set(f"tombstone:{instance_id}", 1)  # what a sweep leaves when it declares it dead
            await runtime.registration.beat()
            await runtime.registration.beat()
            assert runtime.instance_id != instance_id

            async def answer() -> tuple[str | None, bool]:
                return (await store.answers({"one": "5f"}))["one"]

            async def is_answered() -> bool:
                return (await answer())[0] is not None

            await wait_until(is_answered, description="it is answered under the new id")
            stored = (await answer())[0] or ""
            assert runtime.instance_id in stored
            assert bool(wave.asked) is goes_over
            assert goes_over or "it is another instance now" in stored


async def test_each_order_is_an_event_with_who_and_what_came_of_it(make_tracker):
    wave, tracker = Wave(), make_tracker(heartbeat_interval=0.5)
    heard: list[Event] = []
    tracker.on("control")(heard.append)
    with taking("wave", wave.handler()):
        async with registered(tracker) as instance_id:
            await ask(tracker, instance_id)
            callers: list[str] = []
            await (await control_of(tracker, callers)).ask(["nobody"], "wave")
            events = [event for event in await tracker.recent_events() if event.type == "control"]
    told = [(event.instance_id, event.details["order"], event.details["by"], event.details["outcome"]) for event in events]
    assert told == [(instance_id, "wave", "ann@web-1", "done"), ("nobody", "wave", "ann@web-1", "not_found")]
    await wait_until(lambda: heard, description="the callback is told")
    assert [event.instance_id for event in heard] == [instance_id]
    assert len(callers) == 1


async def test_a_blocked_loop_is_answered_for_by_the_watchdog_where_the_order_allows_it(make_tracker, namespace, redis_url):
    threads: list[str] = []

    def from_thread(order: Order) -> Done:
        threads.append(order.order_id)
        return Done(says="from the watchdog")

    wave = Wave()
    worker = make_tracker(heartbeat_interval=0.5, heartbeat_ttl=60.0)
    with taking("wave", wave.handler(when_blocked=from_thread)):
        async with registered(worker) as instance_id:

            def ask_from_another_thread() -> Any:
                async def asking() -> Any:
                    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as asker:
                        return await ask(asker, instance_id)

                return asyncio.run(asking())

            asked = asyncio.get_running_loop().run_in_executor(None, ask_from_another_thread)
            deadline = time.monotonic() + 20.0
            while not threads and time.monotonic() < deadline:
                time.sleep(0.05)  # the loop is blocked
            answer = await asked
    assert len(threads) + len(wave.asked) == 1
    assert answer.outcome is OrderOutcome.DONE
    assert not threads or answer.says == "from the watchdog"


async def test_the_watchdog_begins_no_order_whose_caller_no_longer_waits_and_outlives_a_handler_that_fails(make_tracker):
    asked: list[str] = []

    def from_thread(order: Order) -> Done:
        asked.append(order.order_id)
        raise ValueError("no hands")

    tracker = make_tracker(**QUIET)
    with taking("wave", Wave().handler(when_blocked=from_thread)):
        async with registered(tracker):
            answers = Answers()
            text = '{"kind":"wave","by":"ann","arguments":{}}'
            lines = f"5f 1 {text}\n60 {2**52} {text}"
            runtime_of(tracker).orders.hear_blocked(lines, 2, answers)  # type: ignore[arg-type]
    assert asked == ["60"]
    assert [(order_id, "ValueError: no hands" in answer) for order_id, answer in answers.sent] == [("60", True)]


async def test_many_orders_of_one_instance_are_bounded(make_tracker, redis_client, namespace):
    tracker = make_tracker(**QUIET)
    with taking("wave", Wave().handler()):
        async with registered(tracker) as instance_id:
            runtime = runtime_of(tracker)
            lines = "\n".join(f'{number} {2**52} {{"kind":"wave","by":"ann","arguments":{{}}}}' for number in range(100))
            async with runtime.pen.lock:
                await runtime.store.redis.hset(f"instance:{instance_id}", "orders", lines)
                answer = await ask(make_tracker(), instance_id)
                assert (answer.outcome, answer.says) == (OrderOutcome.REFUSED, "too many of its orders are open")
                await runtime.store.redis.hdel(f"instance:{instance_id}", "orders")
