"""What a worker answers when it was told to abort a run: pure."""

from typing import Any

from async_tracker.control.orders import Done
from async_tracker.records import AbortOutcome, Chain, jsonable


def ended_before() -> Done:
    """The function had ended when the order came."""
    return abort_answer(AbortOutcome.ENDED_BEFORE, "its function had ended")


def abort_answer(outcome: AbortOutcome, says: str, names: tuple[str, ...] = (), *, chain: Chain | None = None) -> Done:
    """Say what came of an abort; ``names`` are the threads that go on, ``chain`` is where the run waits."""
    details: dict[str, Any] = {"outcome": str(outcome), "threads": list(names)}
    if chain is not None:
        details["chain"] = jsonable(chain)
    return Done(says=says, details=details)


def threads_in(chain: Chain) -> tuple[str, ...]:
    """Give the threads that work for a chain, by name, each once.

    >>> threads_in(Chain(branches=(Chain(thread="asyncio_1"), Chain(thread="asyncio_0"), Chain(thread="asyncio_1"))))
    ('asyncio_0', 'asyncio_1')
    """
    own = {chain.thread} if chain.thread is not None else set()
    return tuple(sorted(own.union(*(threads_in(branch) for branch in chain.branches))))


def threads_remark(names: tuple[str, ...]) -> str:
    """Say that threads go on.

    >>> threads_remark(()), threads_remark(("asyncio_0",))
    ('', '; thread asyncio_0 goes on with what it does for it')
    >>> threads_remark(("asyncio_0", "asyncio_1"))
    '; threads asyncio_0, asyncio_1 go on with what they do for it'
    """
    if not names:
        return ""
    if len(names) == 1:
        return f"; thread {names[0]} goes on with what it does for it"
    return f"; threads {', '.join(names)} go on with what they do for it"
