"""What arq reads when it makes its worker is read then, and not when ``install`` decorates: however and whenever it came to be there."""

import asyncio
import functools
import logging
import sys
import types
import warnings
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, ClassVar, cast

import pytest
from arq import cron
from arq.worker import Function, Worker, create_worker, func

from async_tracker import current_job
from tests.harness.wait import wait_until
from tests.integrations.arq.running import result_of, wait_for_end


async def greet(ctx, name="world"):
    return f"hello {name}"


async def late(ctx):
    job = current_job()
    return job and job.function


async def hang(ctx):
    await asyncio.sleep(60)


async def close(worker):
    worker._handle_signals = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        await worker.close()


def rows(stats):
    return {row.function: {name: value for name, value in row.to_dict().items() if name in COUNTED and value} for row in stats.functions}


COUNTED = ("started", "succeeded", "failed", "retried", "aborted", "cancelled", "timed_out", "ended")
ONCE = {"started": 1, "succeeded": 1}


# where functions come from


async def test_a_function_that_is_put_into_the_list_after_the_decorator_has_run_is_run_and_tracked(tracker, observer, run_worker, pool):
    registry: list[Any] = [greet]

    @tracker.install
    class Settings:
        functions = registry
        allow_abort_jobs = True

    registry.append(late)
    worker = await run_worker(Settings)
    assert await result_of(await pool.enqueue_job("late")) == "late"
    assert (await observer.instances())[0].functions == ("greet", "late")
    await worker.stop()
    assert rows(await observer.stats()) == {"late": ONCE}


async def test_a_list_that_is_empty_when_it_is_decorated_may_be_filled_later(tracker, observer, run_worker, pool):
    registry: list[Any] = []
    settings = tracker.install({"functions": registry, "allow_abort_jobs": True})
    registry += [late, greet]
    worker = await run_worker(settings)
    assert await result_of(await pool.enqueue_job("late")) == "late"
    await worker.stop()
    assert rows(await observer.stats()) == {"late": ONCE}


async def test_functions_and_limits_that_are_given_by_keyword_count(tracker, observer, pool):
    @tracker.install
    class Settings:
        allow_abort_jobs = True

    worker = create_worker(
        Settings,  # type: ignore[arg-type]
        functions=[late],
        max_jobs=77,
        burst=True,
        redis_pool=pool,
        queue_name=pool.default_queue_name,
        handle_signals=False,
    )
    job = await pool.enqueue_job("late")
    running = asyncio.create_task(worker.async_run())
    (instance,) = await wait_until(observer.instances, description="the instance is registered")
    assert (instance.concurrency, instance.functions) == (77, ("late",))
    await running
    assert await result_of(job) == "late"
    await close(worker)
    assert rows(await observer.stats()) == {"late": ONCE}


async def test_functions_may_be_named_in_a_module_that_imports_the_settings(tracker, observer, run_worker, pool, monkeypatch):
    """As a string, which arq resolves when it makes its worker: by then the module of the settings is whole."""
    jobs = types.ModuleType("jobs_of_the_settings")
    monkeypatch.setitem(sys.modules, jobs.__name__, jobs)

    @tracker.install
    class Settings:
        functions: ClassVar = ["jobs_of_the_settings.late"]

    jobs.late = late  # type: ignore[attr-defined]
    worker = await run_worker(Settings)
    assert await result_of(await pool.enqueue_job("jobs_of_the_settings.late")) == "jobs_of_the_settings.late"
    await worker.stop()
    assert rows(await observer.stats()) == {"jobs_of_the_settings.late": ONCE}


async def test_functions_may_come_from_a_generator_that_can_be_read_once(tracker, run_worker, pool):
    await run_worker(tracker.install({"functions": (function for function in (late, greet))}))
    assert await result_of(await pool.enqueue_job("late")) == "late"


class Sender:
    """A callable object, and one that makes its coroutine elsewhere."""

    async def __call__(self, ctx, name):
        job = current_job()
        return job and job.function, name

    def plainly(self, ctx, name):
        return self(ctx, name)


SENDERS = {"partial": functools.partial(Sender(), name="a"), "object": Sender(), "method": Sender().plainly}


@pytest.mark.parametrize("kind", SENDERS)
async def test_whatever_arq_can_call_is_tracked(tracker, observer, run_worker, pool, kind):
    item = Function(kind, cast(Any, SENDERS[kind]), None, None, None, None)
    worker = await run_worker(tracker.install({"functions": [item]}))
    job = await pool.enqueue_job(kind, **({} if kind == "partial" else {"name": "a"}))
    assert await result_of(job) == (kind, "a")
    await worker.stop()
    assert rows(await observer.stats()) == {kind: ONCE}


async def test_what_arq_cannot_run_fails_as_it_does_without_us(tracker, observer, run_worker, pool):
    async def story(install):
        future = Function("future", cast(Any, lambda ctx: asyncio.get_running_loop().create_future()), None, None, None, None)
        worker = await run_worker(install({"functions": [future]}))
        result = await result_of(await pool.enqueue_job("future"))
        await worker.stop()
        return type(result), str(result).partition("<")[0]

    assert await story(dict) == await story(tracker.install) == (TypeError, "a coroutine was expected, got ")
    assert rows(await observer.stats()) == {"future": {"started": 1, "failed": 1}}


async def test_a_job_may_have_an_argument_that_is_called_ctx_also_where_it_is_ignored(tracker, run_worker, pool):
    async def look(own, ctx):
        return ctx

    await run_worker(tracker.install({"functions": [func(cast(Any, look), name="look")]}, ignore={"look"}))
    assert await result_of(await pool.enqueue_job("look", ctx=7)) == 7


async def test_two_workers_made_of_one_list_share_it_and_find_it_as_it_was(tracker, make_tracker, observer, run_worker, pool):
    item, nightly = func(late, name="late"), cron(greet, hour=3)
    registry = [item]
    settings = [made.install({"functions": registry, "cron_jobs": [nightly]}) for made in (tracker, make_tracker())]
    workers = [await run_worker(one) for one in settings]
    await wait_until(observer_has(observer, 2), description="both are registered")
    assert (registry, item.coroutine, nightly.coroutine) == ([item], late, greet)
    assert all(worker.worker.functions["late"].coroutine is not late for worker in workers)
    assert workers[0].worker.functions["late"] is not workers[1].worker.functions["late"]
    jobs = [await pool.enqueue_job("late") for _ in range(6)]
    assert [await result_of(job) for job in jobs] == ["late"] * 6
    for worker in workers:
        await worker.stop()
    assert rows(await observer.stats()) == {"late": {"started": 6, "succeeded": 6}}
    assert item.coroutine is late


def observer_has(observer, number):
    async def has() -> bool:
        return bool(len(await observer.instances()) == number)

    return has


# how a worker is run


class Overriding(Worker):
    async def main(self):
        await super().main()


class Runner:
    def __init__(self, worker):
        self.inner = worker

    async def go(self):
        await self.inner.main()


async def by_group(worker):
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.main())


def through_wait_for(hook):
    async def on_startup(ctx):
        await asyncio.wait_for(hook(ctx), 20)

    return on_startup


def in_a_task(hook):
    async def on_startup(ctx):
        await asyncio.create_task(hook(ctx))

    return on_startup


WAYS = {
    "async_run": lambda worker: worker.async_run(),
    "main": lambda worker: worker.main(),
    "run_check": lambda worker: worker.run_check(),
    "a runner": lambda worker: Runner(worker).go(),
    "a task group": by_group,
    "wait_for": lambda worker: asyncio.wait_for(worker.main(), 60),
}


@pytest.mark.parametrize("around", [None, through_wait_for, in_a_task], ids=["plain", "hook through wait_for", "hook in a task"])
@pytest.mark.parametrize("kind", [Worker, Overriding])
@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_is_found_however_it_is_run(tracker, observer, pool, way, kind, around):
    settings = tracker.install({"functions": [late], "max_jobs": 7, "allow_abort_jobs": True})
    if around is not None:
        settings["on_startup"] = around(settings["on_startup"])
    job = await pool.enqueue_job("late")
    worker = kind(**settings, burst=True, redis_pool=pool, queue_name=pool.default_queue_name, handle_signals=False)
    await WAYS[way](worker)
    assert await result_of(job) == "late"
    assert [instance.concurrency for instance in await observer.instances()] == [7]
    await close(worker)
    assert rows(await observer.stats()) == {"late": ONCE}


@pytest.mark.parametrize("is_installed", [True, False])
async def test_workers_that_were_given_one_dict_as_ctx_are_told_apart(tracker, observer, redis_url, run_worker, pool, is_installed):
    names = ("on_startup", "on_shutdown", "on_job_start", "on_job_end", "after_job_end")
    shared = {"mine": 1}
    arguments = {"functions": [hang], "ctx": shared}
    settings = tracker.install(arguments) if is_installed else {**arguments, **{name: getattr(tracker, name) for name in names}}
    one = await run_worker(settings, queue_name="one")
    other = await run_worker(settings, queue_name="two")
    jobs = [await pool.enqueue_job("hang", _job_id=f"of {name}", _queue_name=name) for name in ("one", "two")]
    assert all(jobs)

    async def both() -> bool:
        return len(await observer.jobs()) == 2

    await wait_until(both, timeout=20, description="both are in flight")
    found = {job.job_id: (job.queue, job.instance_id) for job in await observer.jobs()}
    assert {job_id: queue for job_id, (queue, _) in found.items()} == {"of one": "one", "of two": "two"}
    assert len({instance_id for _, instance_id in found.values()}) == 2
    for worker in (one, other):
        worker.terminate()
        await worker.stop()
    assert (await observer.instances(), await observer.orphans()) == ([], [])


async def test_a_worker_that_runs_again_is_wrapped_once(tracker, observer, pool):
    settings = tracker.install({"functions": [late]})
    worker = Worker(**settings, burst=True, redis_pool=pool, queue_name=pool.default_queue_name, handle_signals=False)
    for number in range(3):
        job = await pool.enqueue_job("late")
        await worker.async_run()
        assert await result_of(job) == "late"
        assert cast(Any, worker.functions["late"].coroutine).__wrapped__ is late
        if number:
            await worker.on_shutdown(worker.ctx)
    assert worker.functions["late"].coroutine is late
    assert rows(await observer.stats()) == {"late": {"started": 3, "succeeded": 3}}


async def test_hooks_that_another_decorator_has_wrapped_are_called_through_it(tracker, observer, run_worker, pool):
    """`functools.wraps` copies every mark of ours to the decorator's own function."""
    seen = []

    def traced(hook):
        @functools.wraps(hook)
        async def wrapper(ctx):
            seen.append(hook.__name__)
            await hook(ctx)

        return wrapper

    settings = tracker.install({"functions": [late]})
    for name in ("on_job_start", "on_job_end", "after_job_end"):
        settings[name] = traced(settings[name])
    worker = await run_worker(settings)
    assert await result_of(await pool.enqueue_job("late")) == "late"
    await wait_for_end(worker, 1)
    await worker.stop()
    assert len(seen) == 3
    assert rows(await observer.stats()) == {"late": ONCE}


async def test_without_install_too_limits_and_functions_are_the_workers(tracker, observer, run_worker):
    names = ("on_startup", "on_shutdown", "on_job_start", "on_job_end", "after_job_end")
    await run_worker({"functions": [late], "max_jobs": 7, **{name: getattr(tracker, name) for name in names}})
    (instance,) = await wait_until(observer.instances, description="the instance is registered")
    assert (instance.concurrency, instance.functions) == (7, ("late",))


@pytest.mark.parametrize("hook", [None, 0, type("Falsy", (), {"__bool__": lambda self: False, "__call__": None})()])
async def test_a_hook_that_is_not_true_is_none_as_arq_has_it(tracker, run_worker, pool, hook):
    await run_worker(tracker.install({"functions": [late], "on_startup": hook, "on_job_start": hook}))
    assert await result_of(await pool.enqueue_job("late")) == "late"


# what is not as it was meant


def warned(caplog, part):
    return [record.levelname for record in caplog.records if record.name == "async_tracker" and part in record.getMessage()]


async def notes_of(observer):
    stored = await observer._queries().stored_instances()
    return [(note.is_error, note.says) for item in stored for note in item.description.notes]


async def test_what_comes_into_a_running_worker_is_ended_and_said_once(tracker, observer, run_worker, pool, caplog):
    worker = await run_worker(tracker.install({"functions": [greet], "allow_abort_jobs": True}))
    await result_of(await pool.enqueue_job("greet"))
    worker.worker.functions["late"] = func(late)
    for _ in range(3):
        assert await result_of(await pool.enqueue_job("late")) is None  # its name is not known
    await wait_for_end(worker, 4)
    await wait_until(lambda: notes_of(observer), description="the instance says so")
    assert await notes_of(observer) == [
        (False, "functions came into the worker after its start-up and are not wrapped: late. How their jobs end is not known")
    ]
    assert warned(caplog, "came into the worker") == ["WARNING"]
    await worker.stop()
    assert rows(await observer.stats()) == {"greet": ONCE, None: {"started": 3, "ended": 3}}


async def test_where_no_worker_is_found_jobs_are_ended_and_it_is_said(tracker, observer, run_worker, pool, caplog):
    """A ctx that is a copy is no worker's."""
    settings = tracker.install({"functions": [late], "allow_abort_jobs": True})
    on_startup, copies = settings["on_startup"], []

    async def with_a_copy(ctx):
        copies.append({**ctx})
        await on_startup(copies[-1])

    settings["on_startup"] = with_a_copy
    worker = await run_worker(settings)
    assert await result_of(await pool.enqueue_job("late")) is None
    await wait_for_end(worker, 1)
    assert len(warned(caplog, "was not found")) == 1
    assert len(await notes_of(observer)) == 1
    await worker.stop()
    assert rows(await observer.stats()) == {None: {"started": 1, "ended": 1}}


@pytest.mark.parametrize("choice", [{"ignore": {"pnig", "greet"}}, {"only": ["greet", "pnig"]}])
async def test_where_a_name_is_not_known_all_is_tracked_without_arguments_and_an_error_says_so(
    make_tracker, observer, run_worker, pool, caplog, choice
):
    async def ping(ctx, secret):
        (job,) = await wait_until(observer.jobs, description="it is in flight")
        return job.function, job.args

    worker = await run_worker(make_tracker(record_args=True).install({"functions": [greet, func(ping, name="ping")]}, **choice))
    assert await result_of(await pool.enqueue_job("ping", "secret")) == ("ping", None)
    assert await result_of(await pool.enqueue_job("greet")) == "hello world"
    (what,) = choice
    assert warned(caplog, f"unknown function in {what}= 'pnig': did you mean 'ping'?") == ["ERROR"]
    ((is_error, says),) = await notes_of(observer)
    assert (is_error, says.endswith("Every function is tracked, and no arguments are recorded")) == (True, True)
    await worker.stop()
    assert rows(await observer.stats()) == {"ping": ONCE, "greet": ONCE}


async def test_names_to_ignore_may_be_collected_after_the_decorator_has_run(tracker, observer, run_worker, pool):
    ignored: set[str] = set()
    settings = tracker.install({"functions": [greet, late]}, ignore=ignored)
    ignored.add("late")
    worker = await run_worker(settings)
    assert await result_of(await pool.enqueue_job("late")) is None
    assert await result_of(await pool.enqueue_job("greet")) == "hello world"
    await worker.stop()
    assert rows(await observer.stats()) == {"greet": ONCE}


async def test_names_may_come_from_a_generator(tracker, observer, run_worker, pool):
    settings = tracker.install({"functions": [greet, late]}, only=(name for name in ("greet",)))
    for _ in range(2):
        worker = await run_worker(settings)
        assert await result_of(await pool.enqueue_job("late")) is None
        await worker.stop()
    assert rows(await observer.stats()) == {}


async def test_a_hook_that_was_replaced_after_install_is_said(tracker, observer, run_worker, pool, caplog):
    async def mine(ctx):
        pass

    worker = await run_worker(tracker.install({"functions": [late]}), on_job_start=mine)
    assert await result_of(await pool.enqueue_job("late")) is None
    assert await result_of(await pool.enqueue_job("late")) is None
    await worker.stop()
    assert warned(caplog, "without having passed the tracker's on_job_start") == ["WARNING"]


@pytest.mark.parametrize("replaced", ["on_job_end", "after_job_end"])
async def test_a_success_is_a_success_also_where_a_later_hook_was_replaced(tracker, observer, run_worker, pool, replaced):
    async def mine(ctx):
        pass

    worker = await run_worker(tracker.install({"functions": [late]}), **{replaced: mine})
    assert await result_of(await pool.enqueue_job("late")) == "late"
    await wait_for_end(worker, 1)
    await worker.stop()
    assert rows(await observer.stats()) == {"late": ONCE}


class Name(str, Enum):  # noqa: UP042 - as people wrote it before there was StrEnum, and str() shows it otherwise
    SEND = "send"
    QUEUE = "queue of an enumeration"


async def test_limits_and_names_of_odd_types_are_written_down_all_the_same(tracker, observer, run_worker, pool):
    item = Function(Name.SEND, late, cast(float, Fraction(5)), None, None, None)
    worker = await run_worker(tracker.install({"functions": [item], "max_jobs": Decimal(3)}), queue_name=Name.QUEUE)
    job = await pool.enqueue_job("send", _queue_name="queue of an enumeration")
    assert await result_of(job) == "send"
    (instance,) = await observer.instances()
    assert (instance.concurrency, instance.functions, instance.queue) == (3, ("send",), "queue of an enumeration")
    await worker.stop()
    (row,) = (await observer.stats()).functions
    assert (row.function, row.queue, row.succeeded) == ("send", "queue of an enumeration", 1)


async def test_what_a_decorated_class_holds_is_left_as_it_was(tracker):
    registry = [func(late, name="late"), greet, "tests.integrations.arq.test_install.greet"]
    jobs = [cron(greet, hour=3)]

    @tracker.install
    class Settings:
        functions = registry
        cron_jobs = jobs

    assert (Settings.functions is registry, Settings.cron_jobs is jobs) == (True, True)
    assert registry[1:] == [greet, "tests.integrations.arq.test_install.greet"]


async def test_stopping_a_worker_that_was_never_found_by_another_leaves_that_one(tracker, observer, run_worker, pool, caplog):
    """Its start-up hook was replaced, so it is not tracked; what it calls on its way out is no word of the other's."""

    async def mine(ctx):
        pass

    caplog.set_level(logging.WARNING)
    tracked = await run_worker(tracker.install({"functions": [late]}))
    await wait_until(observer.instances, description="the instance is registered")
    untracked = await run_worker(tracker.install({"functions": [late]}), on_startup=mine, queue_name="elsewhere")
    await untracked.stop()
    assert len(await observer.instances()) == 1
    assert await result_of(await pool.enqueue_job("late")) == "late"
    await tracked.stop()


@pytest.mark.parametrize("is_installed", [True, False])
async def test_a_worker_calls_hooks_of_its_own_which_need_not_ask_whose_job_it_is(tracker, run_worker, is_installed):
    names = ("on_job_start", "on_job_end", "after_job_end")
    own = {name: getattr(tracker, name) for name in ("on_startup", "on_shutdown", *names)}
    settings = tracker.install({"functions": [late]}) if is_installed else {"functions": [late], **own}
    worker = await run_worker(settings)
    await wait_until(lambda: tracker.instance_id, description="the worker's hook has made its instance")
    assert {name: getattr(worker.worker, name).__module__ for name in names} == dict.fromkeys(names, "async_tracker.integrations.arq.jobs")
    await worker.stop()
    assert {name: getattr(worker.worker, name) for name in names} == {name: settings[name] for name in names}


async def test_the_task_that_waits_for_a_worker_is_not_taken_for_the_one_that_runs_it(tracker, observer, pool):
    """Where the hook is called in a task, both know the worker; the end of the one that runs it is the end of its polling."""
    settings = tracker.install({"functions": [late]})
    settings["on_startup"] = in_a_task(settings["on_startup"])
    for _ in range(5):
        worker = Worker(**settings, burst=True, redis_pool=pool, queue_name=pool.default_queue_name, handle_signals=False)
        job = await pool.enqueue_job("late")
        await worker.async_run()
        assert await result_of(job) == "late"
        (tracked,) = [one for one in tracker._hooks.workers if one.worker is worker]
        assert tracked.main_task is worker.main_task
        await worker.on_shutdown(worker.ctx)
