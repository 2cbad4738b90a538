"""The fence: arq's own claim carries the token of the run that holds it.

arq marks a job that runs by writing ``b'1'`` into ``arq:in-progress:{job}`` and only ever tests whether that key exists. From
start-up on, the pipelines of the worker's pool write ``{instance}:{run}`` instead, in the same command: no further cost, and no
moment in which a claim has no name. Everything else goes through unchanged.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from async_tracker import runs
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.integrations.arq.names import IN_PROGRESS, RETRY
from async_tracker.runs import current
from async_tracker.writer import Pen

_UNNAMED = b"1"

_UNSTARTED_KEPT = 1_000
"""Claims that are remembered until their job starts. A claim that another worker won leaves an entry behind: the oldest go."""


class Claims:
    """The claims that this process has made and whose jobs have not started.

    Not all of them are held any more: another worker was quicker, or arq has given up the job before its start. Redis knows.
    """

    def __init__(self, pen: Pen, *, hears_ends: bool = True) -> None:
        self.pen = pen
        """Whose name the claims carry."""
        self.hears_ends = hears_ends
        """Whether a run is to be told that arq is done with it: `install` knows more without."""
        self.held: dict[str, str] = {}
        """arq's key -> what was, or is about to be, written there; whose job starts takes it out."""
        self._stale: dict[str, str] = {}
        """Those that were made under an id that was declared dead."""
        pen.on_renamed = self._turn_over

    def forget_old(self) -> None:
        """Keep no more than there is room for."""
        for old in list(self.held)[:-_UNSTARTED_KEPT]:
            del self.held[old]

    def _turn_over(self) -> None:
        self._stale = dict([*self._stale.items(), *self.held.items()][-_UNSTARTED_KEPT:])
        self.held.clear()

    def take(self, job_id: str) -> str:
        """A job starts: give its claim, be it one under an earlier id of ours, or else one that stands in no key."""
        key = IN_PROGRESS + job_id
        return self.held.pop(key, None) or self._stale.pop(key, None) or f"{self.pen.instance_id}:{runs.new_run()}"

    def unstarted(self) -> list[tuple[str, str, str]]:
        """Give the claims whose jobs have not started, as far as this process knows: job id, instance id, run."""
        parts = [(key, claim.rpartition(":")) for key, claim in (*self._stale.items(), *self.held.items())]
        return [(key[len(IN_PROGRESS) :], instance_id, run) for key, (instance_id, _, run) in parts]


def name_claims(pool: Any, claims: Claims) -> None:
    """Make the pool's pipelines write named claims from here on. A second call for the same claims changes nothing."""
    if getattr(pool, "_async_tracker_claims", None) is claims:
        return
    make_pipeline = pool.pipeline
    pool.pipeline = _quick_pipeline(pool, claims) or _named_pipeline(make_pipeline, claims)
    pool._async_tracker_claims = claims
    pool._async_tracker_pipeline = make_pipeline


def stop_naming(pool: Any, claims: Claims) -> None:
    """Give the pool its own pipelines back."""
    if getattr(pool, "_async_tracker_claims", None) is claims:
        pool.pipeline = pool._async_tracker_pipeline
        pool._async_tracker_claims = None


def _named_pipeline(make_pipeline: Callable[..., Any], claims: Claims) -> Callable[..., Any]:
    """Make what whoever made the pool makes, and give it another class."""
    kinds: dict[type, type] = {}

    def pipeline(*args: Any, **kwargs: Any) -> Any:
        pipe = make_pipeline(*args, **kwargs)
        kind = type(pipe)
        if kind not in kinds:
            kinds[kind] = _naming(kind, claims)
        pipe.__class__ = kinds[kind]
        return pipe

    return pipeline


def _quick_pipeline(pool: Any, claims: Claims) -> Callable[..., Any] | None:
    """Make the pipeline of the other class at once, where the pool's way to make one is redis-py's own; else None.

    An object whose class was changed is slow for all its life, and arq makes three pipelines for every job.
    """
    own = type(pool).pipeline
    if "pipeline" in vars(pool) or not isinstance(own, FunctionType) or own.__module__ != "redis.asyncio.client":
        return None
    made = pool.pipeline()
    naming = _naming(type(made), claims)

    def pipeline(transaction: bool = True, shard_hint: str | None = None) -> Any:
        return naming(pool.connection_pool, pool.response_callbacks, transaction, shard_hint)

    try:
        return pipeline if vars(pipeline()) == vars(made) else None
    except TypeError:  # a redis-py whose pipelines are made of something else
        return None


def _naming(kind: Any, claims: Claims) -> Any:
    """Make the subclass of a pipeline class that names claims, and tells a run that arq is done with it where nobody else does."""
    plain_psetex, plain_delete = kind.psetex, kind.delete
    held, pen = claims.held, claims.pen
    is_own = plain_psetex.__module__ == "redis.commands.core"  # which does no more with milliseconds that are a number

    def psetex(self: Any, name: Any, time_ms: Any, value: Any) -> Any:
        if value == _UNNAMED and isinstance(name, str) and name.startswith(IN_PROGRESS):
            value = held[name] = f"{pen.instance_id}:{runs.new_run()}"
            if is_own:
                return self.execute_command("PSETEX", name, time_ms, value)
        return plain_psetex(self, name, time_ms, value)

    def delete(self: Any, *names: Any) -> Any:
        run = current.get()  # arq ends a job in the context in which it started it
        if isinstance(run, ArqRun) and run.outcome is None:
            run.complete()
            run.is_finished = run.is_finished or RETRY + run.job_id in names
        return plain_delete(self, *names)

    changed = {"psetex": psetex, "delete": delete} if claims.hears_ends else {"psetex": psetex}
    return type(kind.__name__, (kind,), {**changed, "__module__": kind.__module__})
