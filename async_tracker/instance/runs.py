"""A run as the process that runs it knows it, and `CurrentJob`, what a job sees of it."""

import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Protocol, TypedDict, Unpack

from async_tracker.clock import to_ms
from async_tracker.errors import LeaseLost
from async_tracker.forks import on_fork
from async_tracker.policy import NO_LIBRARY
from async_tracker.store.fitting import fit_fraction, fit_text
from async_tracker.store.run_record import RunRecord, job_ref

logger = logging.getLogger("async_tracker")

_MESSAGE_LENGTH = 200
"""Characters of a progress message that are kept; it stands in the record of every run in flight."""
_ARGS_LENGTH = 200
_FUNCTIONS_COMPLAINED_OF = 1_000
"""Of how many functions it is remembered that the log says what is wrong with their reports; then it says no more."""
_BEYOND_ROUNDING = 1e-6
_LOW_DIGITS = [f"{low:02x}" for low in range(256)]


def _numbers_from(high: int) -> list[str]:
    """Make 256 numbers as text at a time: it is not quick, and every job has one."""
    head = f"{high:x}"
    return [head + low for low in _LOW_DIGITS]


class Tokens:
    """The tokens of this process's runs: unique, short, and free of anything that would have to be escaped. No secret.

    A token is ``prefix`` and the next of ``numbers``; a hook that makes one for every job puts them together in place.
    """

    def __init__(self) -> None:
        self.prefix = ""
        self.numbers = itertools.chain.from_iterable(map(_numbers_from, itertools.count()))
        self.forget_in_child()
        on_fork(self)

    def forget_in_child(self) -> None:
        """Make others from here on: a forked child must not go on with its parent's."""
        self.prefix = secrets.token_hex(6)

    def new(self) -> str:
        """Make the token of a run."""
        return f"{self.prefix}{next(self.numbers)}"


tokens = Tokens()


class Keeper(Protocol):
    """What keeps the runs of an instance."""

    def touch(self, run: "Run") -> None:
        """Something that is stored of the run has changed."""

    async def is_still_owned(self, run: "Run") -> bool:
        """Ask Redis whether the run's job was not given to another worker. Raises StorageError when Redis cannot tell."""
        ...


class Facts(TypedDict, total=False):
    """What may be known of a run when it starts; `Run` says what each of them is."""

    job_try: int
    function: str | None
    queue: str | None
    enqueued_at_ms: int | None
    due_at_ms: int | None
    timeout: float | None
    args: str | None
    scope: str
    hold: str | None


class Run:
    """One run in flight. Owned by the journal; the hooks fill it in as they learn more.

    It is made for every job, so an object holds only what differs from the defaults of the class.
    """

    job_try: int = 1
    function: str | None = None
    queue: str | None = None
    enqueued_at_ms: int | None = None
    enqueued_at: datetime | None = None
    """The same as the worker library gives it; converted to milliseconds only for the runs that are stored."""
    due_at_ms: int | None = None
    """When it was due, for the time that it waited in its queue; not stored."""
    timeout: float | None = None
    args: str | None = None
    progress: float | None = None
    progress_message: str | None = None
    outcome: str | None = None
    ended_mono_ms: float = 0.0
    """When the work ended, on the monotonic clock: hooks that run after it are no part of the run. 0 until then."""
    owned: bool = True
    """False once the instance was declared dead: another worker may run the job now."""
    in_flight: bool = True
    scope: str = ""
    """See `RunRecord`, as for ``hold``."""
    hold: str | None = None
    traceparent: str | None = None
    is_prompt: bool = False
    """It is written at once, whatever its age."""
    sent: bool = False
    """A write that may have reached Redis carried this run."""
    stored: bool = False
    """A write that carried this run was taken."""
    expects_name: bool = False
    """The function's name comes after the start: until then the start is not counted."""
    is_taken_in: bool = False
    """The journal has taken it in since it started."""
    is_start_counted: bool = False
    is_end_counted: bool = False
    placed: Any = None
    """The task that runs it, or the number of the thread; None where it is not known."""
    library_files: tuple[str, ...] = ()
    """Where the outermost functions of its chain are that are the library's, or ours: ends of names of files."""
    keeper: Keeper
    """What keeps it. A run that is made with few facts, for speed, has none until `complete`."""
    handle: "CurrentJob | None" = None
    """What the job sees of it, once it has asked."""

    def __init__(
        self,
        job_id: str,
        token: str,
        instance_id: str,
        started_at_ms: int,
        started_mono_ms: float,
        keeper: Keeper,
        library: str = NO_LIBRARY,
        **facts: Unpack[Facts],
    ) -> None:
        self.job_id = job_id
        self.token = token
        self.instance_id = instance_id
        self.started_at_ms = started_at_ms
        self.started_mono_ms = started_mono_ms
        self.keeper = keeper
        self.library = library
        if facts:
            self.__dict__.update(facts)
        self.ref = job_ref(self.scope, job_id) if self.scope else job_id
        """What keys and sets call the job."""

    def __repr__(self) -> str:
        return f"<Run {self.token} of {self.ref!r} try {self.job_try} on {self.instance_id}>"

    def complete(self) -> None:
        """Learn what is only needed where the run is read; a second time changes nothing."""

    def place(self) -> Any:
        """Give the task that runs it, or the number of the thread; None where it is not known."""
        return self.placed

    def record(self, *, superseded: int = 0) -> RunRecord:
        """Give what is stored of it."""
        return RunRecord(
            job_id=self.job_id,
            instance_id=self.instance_id,
            token=self.token,
            job_try=self.job_try,
            function=self.function,
            queue=self.queue,
            library=self.library,
            enqueued_at_ms=self.enqueued_at_ms if self.enqueued_at is None else to_ms(self.enqueued_at),
            started_at_ms=self.started_at_ms,
            timeout=self.timeout,
            progress=self.progress,
            progress_message=self.progress_message,
            args=self.args,
            superseded=superseded,
            scope=self.scope,
            hold=self.hold,
            traceparent=self.traceparent,
        )


class _Done:
    """An awaitable that is done already: awaiting it costs nothing, and it may also be left unawaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


_DONE = _Done()


class CurrentJob:
    """The job in hand, from inside its run. Works in the run's tasks and under ``asyncio.to_thread``."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def job_id(self) -> str:
        """The id that the worker library gave the job."""
        return self._run.job_id

    @property
    def instance_id(self) -> str:
        """The instance under which the run started."""
        return self._run.instance_id

    @property
    def run(self) -> str:
        """The token of this run: another run of the same job has another one."""
        return self._run.token

    @property
    def job_try(self) -> int:
        """Which try this is; the first is 1."""
        return self._run.job_try

    @property
    def function(self) -> str | None:
        """The function's name, or None when it is not known."""
        return self._run.function

    @property
    def queue(self) -> str | None:
        """The queue that the job came from, or None when it is not known."""
        return self._run.queue

    @property
    def owned(self) -> bool:
        """Whether the job is still ours, as far as this process knows; costs nothing."""
        return self._run.owned

    async def ensure_owned(self) -> None:
        """Ask Redis whether the job is still ours; for code about to do what must not happen twice.

        Raises LeaseLost when it was given to another worker, StorageError when Redis cannot tell.
        """
        if not self._run.owned or not await self._run.keeper.is_still_owned(self._run):
            self._run.owned = False
            raise LeaseLost(f"job {self._run.job_id!r} is not ours any more: instance {self._run.instance_id} was declared dead")

    def progress(self, fraction: float | None = None, message: str | None = None) -> Awaitable[None]:
        """Say how far the job is: a fraction from 0 to 1, a short text, or both. Written with the next flush; returns at once.

        Await it in a coroutine and call it in a plain function: it is done either way. It raises nothing, for a report must not fail
        the job: a number below 0 or above 1 is taken for the nearer end, and what is no number, or no text, is left out. The log says
        so once for each function, except where it is only rounding.
        """
        try:
            self._report(fraction, message)
        except Exception as exc:  # the edge of a report: the job goes on
            complain(self._run.function, "its progress cannot be noted (%s)", type(exc).__name__)
        return _DONE

    def _report(self, fraction: Any, message: Any) -> None:
        run = self._run
        if fraction is not None:
            fit = fit_fraction(fraction)
            if fit is None:
                complain(run.function, "progress() was given %s, which is no fraction: write progress(done / total)", _kind(fraction))
            else:
                run.progress = fit
                if abs(fit - float(fraction)) > _BEYOND_ROUNDING:
                    complain(run.function, "progress() was given a number that is not between 0 and 1: write progress(done / total)")
        if message is not None:
            text = fit_text(message, length=_MESSAGE_LENGTH)
            if text is None:
                complain(run.function, "progress() was given a message of which no text can be made, %s", _kind(message))
            else:
                run.progress_message = text
        run.keeper.touch(run)

    def __repr__(self) -> str:
        return f"<CurrentJob {self.job_id!r} try {self.job_try} on {self.instance_id}>"


current: ContextVar[Run | None] = ContextVar("async_tracker_current_run", default=None)


def current_job() -> CurrentJob | None:
    """Give the job in hand from anywhere inside a tracked run, ``asyncio.to_thread`` included; elsewhere None."""
    run = current.get()
    return handle_of(run) if run is not None else None


def handle_of(run: Run) -> CurrentJob:
    """Give what the job sees of its run; made when the job first asks, which most never do."""
    if run.handle is None:
        run.complete()
        run.handle = CurrentJob(run)
    return run.handle


def shown_args(args: tuple[Any, ...], kwargs: dict[str, Any], redact: Callable[[str], str] | None) -> str:
    """Give the arguments as a short text, through the redaction hook. What cannot be shown is said to be so, and the log says why, once.

    Raises nothing. Where the redaction fails, nothing of the arguments is shown.

    >>> shown_args((1,), {"to": "me"}, None)
    "1, to='me'"
    """
    try:
        shown: Any = ", ".join([*(repr(value) for value in args), *(f"{name}={value!r}" for name, value in kwargs.items())])
        shown = redact(shown) if redact is not None else shown
    except Exception as exc:  # a __repr__ or the redaction of the user: the job must not notice
        complain(_function_in_hand(), "its arguments cannot be shown: __repr__ or redact raised %s", type(exc).__name__)
        return f"<arguments cannot be shown: {type(exc).__name__}>"
    if not isinstance(shown, str):
        complain(_function_in_hand(), "its arguments are not shown: redact returned %s, and must return text", _kind(shown))
        return f"<arguments cannot be shown: redact returned {_kind(shown)}>"
    return str.__str__(shown) if len(shown) <= _ARGS_LENGTH else str.__str__(shown)[: _ARGS_LENGTH - 1] + "…"


def _function_in_hand() -> str | None:
    run = current.get()
    return run.function if run is not None else None


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__


_complained_of: set[tuple[str | None, str]] = set()


def complain(function: str | None, what: str, *facts: str) -> None:
    """Say in the log, once for each function, what is wrong with a report from it. The job does not notice, and the log stays short.

    ``what`` is a format, and what is said once; ``facts`` belong into it.
    """
    key = (function, what)
    if key not in _complained_of and len(_complained_of) < _FUNCTIONS_COMPLAINED_OF:
        _complained_of.add(key)
        whose = "a function" if function is None else f"function {function!r}"
        logger.warning("%s: " + what + "; the job runs on, and this is not logged again", whose, *facts)
