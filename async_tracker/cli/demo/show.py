"""The story of the demo, from the first worker to the sum of the ledger."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from async_tracker.cli.demo.crews import Crew
from async_tracker.cli.demo.kill import Act, Witness, kill_one
from async_tracker.cli.demo.ledger import Account
from async_tracker.cli.demo.load import Load
from async_tracker.cli.demo.screen import Screen
from async_tracker.cli.demo.stage import Stage, stage
from async_tracker.cli.endings import Ending
from async_tracker.cli.instances import blocked_remark
from async_tracker.cli.tables import Table, show
from async_tracker.cli.target import Target
from async_tracker.cli.wording import say, say_document
from async_tracker.queries.wording import duration
from async_tracker.records import Snapshot

_LOOK_INTERVAL = 0.25
_DRAIN_TIMEOUT = 60.0
_DRAIN_POLL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How long the parts of the show take, in seconds."""

    begin: float = 3.0
    block_for: float = 6.0
    after_block: float = 4.0
    slow_for: float = 4.0
    go_on: float = 4.0


Beside = Callable[[Stage, Screen], AbstractAsyncContextManager[None]]
"""What goes on beside the show, from when its stage is set."""

QUICK = Script(begin=0.5, block_for=2.5, after_block=0.5, slow_for=2.0, go_on=0.5)


@asynccontextmanager
async def _nothing(set_up: Stage, screen: Screen) -> AsyncIterator[None]:
    yield


async def demo(target: Target, *, quick: bool, keep: bool, workers: str, beside: Beside = _nothing) -> int:
    """Show it all, with something beside it. Ends well only if no job was lost."""
    _end_by_cancelling()
    async with stage(target, workers=workers) as set_up:
        with Screen(stream=sys.stderr if target.as_json else sys.stdout) as screen:
            async with beside(set_up, screen):
                acts, account = await _play(set_up, screen, QUICK if quick else Script(), keep=keep, target=target)
            if not keep:
                screen.tell("asking the workers to leave")
                await asyncio.to_thread(set_up.ask_workers_to_leave)
        if not keep:
            _summarize(acts, account, target)
    return Ending.BAD_ANSWER if account.lost else Ending.OK


def _end_by_cancelling() -> None:
    """A SIGTERM, or a terminal that is closed, ends the show as Ctrl-C does: with everything cleaned up."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _play(set_up: Stage, screen: Screen, script: Script, *, keep: bool, target: Target) -> tuple[list[Act], Account]:
    screen.tell(f"server {'given' if set_up.is_given else 'started'}: {set_up.url}, namespace {set_up.namespace}")
    set_up.start_workers()
    await set_up.wait_until_registered()
    for crew in set_up.crews:
        mates = [worker for worker in set_up.workers if worker.crew is crew]
        screen.tell(f"{len(mates)} {crew.library} workers are registered: {', '.join(f'{w.name} (pid {w.pid})' for w in mates)}")
    witness = Witness(set_up)
    async with _entered(set_up.crews), _beside(_look(set_up, screen), witness.follow()):
        load = Load(set_up.crews, ledger=set_up.ledger, slow_for=script.slow_for)
        async with _beside(load.run()):
            screen.tell("jobs come in: quick, slow, failing, to be retried")
            await asyncio.sleep(script.begin)
            await load.enqueue("blocking", script.block_for)
            screen.tell(f"one job will block its worker's event loop for {duration(script.block_for)}: its jobs must stay with it")
            await asyncio.sleep(script.block_for + script.after_block)
            acts = [await kill_one(set_up, screen, witness, crew) for crew in set_up.crews]
            await asyncio.sleep(script.go_on)
        screen.tell("no more jobs come in; waiting for those that are left")
        account = await _drained(set_up)
        if keep:
            _summarize(acts, account, target)
            await _keep_going(set_up, screen, load)
    return acts, account


@asynccontextmanager
async def _entered(crews: Sequence[Crew]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for crew in crews:
            await stack.enter_async_context(crew)
        yield


@asynccontextmanager
async def _beside(*bodies: Awaitable[None]) -> AsyncIterator[None]:
    """Run these beside the block, until it ends; what one of them raises ends the block."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_as_coroutine(body)) for body in bodies]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _as_coroutine(body: Awaitable[None]) -> None:
    await body


async def _look(set_up: Stage, screen: Screen) -> None:
    """Keep the view up to date, and say when a loop is blocked and when it is back."""
    blocked: dict[str, str] = {}
    while True:
        snapshot = await set_up.tracker.snapshot()
        _tell_of_blocks(snapshot, blocked, set_up, screen)
        screen.show(snapshot, set_up.ledger.read())
        await asyncio.sleep(_LOOK_INTERVAL)


def _tell_of_blocks(snapshot: Snapshot, blocked: dict[str, str], set_up: Stage, screen: Screen) -> None:
    present = {item.instance_id: item for item in snapshot.instances}
    for name, item in present.items():
        if item.blocked_at and blocked.get(name) != str(item.state):
            screen.tell(f"{set_up.name_of(item.pid)} is {item.state}, {blocked_remark(item)}; it is left alone", style="yellow")
            blocked[name] = str(item.state)
    for name in [name for name in blocked if name in present and not present[name].blocked_at]:
        screen.tell(f"{set_up.name_of(present[name].pid)} is {present[name].state} again, with all its jobs", style="green")
        del blocked[name]


async def _drained(set_up: Stage) -> Account:
    """Wait until every job has ended; what has not by then is lost."""
    deadline = time.monotonic() + _DRAIN_TIMEOUT
    while True:
        account = set_up.ledger.read()
        if not account.lost or time.monotonic() > deadline:
            return account
        await asyncio.sleep(_DRAIN_POLL)


async def _keep_going(set_up: Stage, screen: Screen, load: Load) -> None:
    where = f"--redis-url '{set_up.url}' --namespace {set_up.namespace}"
    screen.tell("the show goes on until Ctrl-C; from another terminal try", style="bold")
    for command in ("ps", "jobs", "events", "stats", "doctor"):
        screen.tell(f"  async-tracker {command} {where}", style="bold")
    await load.run()


def _summarize(acts: Sequence[Act], account: Account, target: Target) -> None:
    counts = {
        "enqueued": len(account.enqueued),
        "succeeded": len(account.succeeded),
        "failed": len(account.failed),
        "retried": len(account.retried),
        "recovered": len(account.recovered),
        "lost": len(account.lost),
    }
    if target.as_json:
        say_document({"summary": counts, "kill": acts[0], "kills": acts, "lost": sorted(account.lost)})
        return
    for act in acts:
        _tell_fates(act)
    title = "What the jobs themselves have written down"
    show(Table(title=title, columns=[name.upper() for name in counts], rows=[[str(number) for number in counts.values()]]))
    say("Nothing was lost." if not account.lost else f"LOST: {', '.join(sorted(account.lost))}")


def _tell_fates(act: Act) -> None:
    rows = [
        (
            fate.job_id,
            duration(fate.recovered_after),
            duration(fate.running_after),
            fate.running_on or "-",
            duration(fate.alone),
        )
        for fate in act.fates
    ]
    say()
    columns = ("JOB", "RECOVERED AFTER", "RUNNING AGAIN AFTER", "ON", f"BY {act.library.upper()} ALONE AFTER")
    show(Table(title=f"{act.victim} was killed; that was noticed after {duration(act.noticed_after)}", columns=columns, rows=rows))
