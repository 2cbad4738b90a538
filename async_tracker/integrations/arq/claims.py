"""The fence: arq's own claim carries the token of the run that holds it.

arq marks a job that runs by writing ``b'1'`` into ``arq:in-progress:{job}`` and only ever tests whether that key exists. From
start-up on, the pipelines of the worker's pool write ``{instance}:{run}`` instead, in the same command: no further cost, and no
moment in which a claim has no name. Everything else goes through unchanged.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from async_tracker.instance.pen import Pen
from async_tracker.instance.runs import current, tokens
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.integrations.arq.names import IN_PROGRESS, RETRY

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
        """job id -> what was, or is about to be, written into arq's key; whose job starts takes it out."""
        self._stale: dict[str, str] = {}
        """Those that were made under an id that was declared dead."""
        self.prefix = f"{pen.instance_id}:"
        """What every claim begins with."""

    def forget_old(self) -> None:
        """Keep no more than there is room for."""
        for old in list(self.held)[:-_UNSTARTED_KEPT]:
            del self.held[old]

    def turn_over(self) -> None:
        """The instance has taken another id: what was claimed under the old one is stale."""
        self._stale = dict([*self._stale.items(), *self.held.items()][-_UNSTARTED_KEPT:])
        self.held.clear()
        self.prefix = f"{self.pen.instance_id}:"

    def take(self, job_id: str) -> str:
        """A job starts: give its claim, be it one under an earlier id of ours, or else one that stands in no key."""
        return self.held.pop(job_id, None) or self._stale.pop(job_id, None) or self.prefix + tokens.new()

    def unstarted(self) -> list[tuple[str, str, str]]:
        """Give the claims whose jobs have not started, as far as this process knows: job id, instance id, run."""
        parts = [(job_id, claim.rpartition(":")) for job_id, claim in (*self._stale.items(), *self.held.items())]
        return [(job_id, instance_id, run) for job_id, (instance_id, _, run) in parts]


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
    held, numbers = claims.held, tokens.numbers
    is_plain = _lays_psetex_down(kind)

    def psetex(self: Any, name: Any, time_ms: Any, value: Any) -> Any:
        if value == _UNNAMED and type(name) is str:
            job_id = name.removeprefix(IN_PROGRESS)
            if job_id is not name:
                value = held[job_id] = f"{claims.prefix}{tokens.prefix}{next(numbers)}"
                if is_plain and self.explicit_transaction:
                    self.command_stack.append((("PSETEX", name, time_ms, value), {}))
                    return self
        return plain_psetex(self, name, time_ms, value)

    def delete(self: Any, *names: Any) -> Any:
        run = current.get()  # arq ends a job in the context in which it started it
        if isinstance(run, ArqRun) and run.outcome is None:
            run.complete()
            run.is_finished = run.is_finished or RETRY + run.job_id in names
        return plain_delete(self, *names)

    changed = {"psetex": psetex, "delete": delete} if claims.hears_ends else {"psetex": psetex}
    return type(kind.__name__, (kind,), {**changed, "__module__": kind.__module__})


def _lays_psetex_down(kind: Any) -> bool:
    """Whether this class of pipelines only lays the command down between MULTI and EXEC, as redis-py's own does.

    Then so can we: what stands between there and here costs every job more than its name does.
    """
    methods = ("__init__", "multi", "execute_command", "pipeline_execute_command")
    of_redis_py = {"psetex": "redis.commands.core", **dict.fromkeys(methods, "redis.asyncio.client")}
    if any(getattr(getattr(kind, name, None), "__module__", "") != module for name, module in of_redis_py.items()):
        return False
    try:
        probe = kind(None, {}, True, None)
    except TypeError:  # a redis-py whose pipelines are made of something else
        return False
    probe.multi()
    probe.psetex("name", 1, _UNNAMED)
    return bool(probe.explicit_transaction and probe.command_stack == [(("PSETEX", "name", 1, _UNNAMED), {})])
