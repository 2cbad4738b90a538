"""The fence: arq's own claim carries the token of the run that holds it.

arq marks a job that runs by writing ``b'1'`` into ``arq:in-progress:{job}`` and only ever tests whether that key exists. From
start-up on, the pipelines of the worker's pool write ``{instance}:{run}`` instead, in the same command: no further cost, and no
moment in which a claim has no name. Everything else goes through unchanged.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from async_tracker.instance.pen import Pen
from async_tracker.instance.runs import current, tokens
from async_tracker.integrations.arq.job_run import ArqRun
from async_tracker.integrations.arq.names import IN_PROGRESS, RETRY

_UNNAMED = b"1"
_NAMING = "_async_tracker_naming"
"""Under which a pool keeps how it made its pipelines."""

_UNSTARTED_KEPT = 1_000
"""Claims that are remembered until their job starts. A claim that another worker won leaves an entry behind: the oldest go."""


class Claims:
    """The claims that this process has made and whose jobs have not started.

    Not all of them are held any more: another worker was quicker, or arq has given up the job before its start. Redis knows.
    """

    def __init__(self, pen: Pen, *, find_run: Callable[[str], ArqRun | None], hears_ends: bool = True, keeps_tries: bool = False) -> None:
        self.pen = pen
        """Whose name the claims carry."""
        self.hears_ends = hears_ends
        """Whether a run is to be told that arq is done with it: where functions are wrapped, more is known without."""
        self.keeps_tries = keeps_tries
        """Whether tries may be given back with the claims, which takes a look at what every job ends with."""
        self._given_back: set[str] = set()
        """Jobs whose claims arq is about to give back, and their tries with them."""
        self.find_run = find_run
        """Gives the run of a job that arq is done with, where it does not say so in the context in which it started the job."""
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

    def make(self, job_id: str) -> str:
        """A job is about to be claimed: give what is to be written."""
        claim = self.held[job_id] = self.prefix + tokens.new()
        return claim

    def take(self, job_id: str) -> str:
        """A job starts: give its claim, be it one under an earlier id of ours, or else one that stands in no key."""
        return self.held.pop(job_id, None) or self._stale.pop(job_id, None) or self.prefix + tokens.new()

    def give_try_back(self, job_id: str) -> None:
        """arq is about to give the claim of this job back: it is to count the try as if it had not been."""
        self._given_back.add(job_id)

    def takes_back(self, job_id: str) -> bool:
        """Tell, once, whether the try of this job is to be given back with its claim."""
        if job_id in self._given_back:
            self._given_back.discard(job_id)
            return True
        return False

    def is_held(self, job_id: str, token: str) -> bool:
        """Tell whether the run with this token has a claim that it has not started under, as far as this process knows."""
        return self.held.get(job_id, "").rpartition(":")[2] == token

    def unstarted(self) -> list[tuple[str, str, str]]:
        """Give the claims whose jobs have not started, as far as this process knows: job id, instance id, run."""
        parts = [(job_id, claim.rpartition(":")) for job_id, claim in (*self._stale.items(), *self.held.items())]
        return [(job_id, instance_id, run) for job_id, (instance_id, _, run) in parts]


_Claimant = tuple[Claims, asyncio.Task[Any] | None]
"""Whose claims, and the task that makes them: arq claims in the task that runs ``Worker.main``."""


class _Naming:
    """How a pool makes its pipelines, and for whom they name claims: for a worker, or for several that share the pool."""

    def __init__(self, pool: Any) -> None:
        self.make_pipeline = pool.pipeline
        self.was_changed = "pipeline" in vars(pool)
        self.claimants: list[_Claimant] = []

    def give_back(self, pool: Any) -> None:
        """Let the pool make its pipelines as it did."""
        if self.was_changed:
            pool.pipeline = self.make_pipeline
        else:
            del pool.pipeline

    def take(self, pool: Any) -> None:
        """Have the pool make pipelines that name claims."""
        claimants = tuple(self.claimants)
        if len(claimants) == 1:
            ((claims, _),) = claimants
            make = _naming_for_one(claims)
        else:
            make = _naming_for_many(claimants)
        quick = None if self.was_changed else _quick_pipeline(pool, self.make_pipeline, make)
        pool.pipeline = quick or _named_pipeline(self.make_pipeline, make)


def name_claims(pool: Any, claims: Claims, *, main_task: asyncio.Task[Any] | None = None) -> None:
    """Make the pool's pipelines write named claims from here on. A second call for the same claims changes nothing.

    Of several workers with one pool, each names those that are made in its ``main_task``, and the newest names the rest.
    """
    naming = getattr(pool, _NAMING, None)
    if naming is None:
        naming = _Naming(pool)
        setattr(pool, _NAMING, naming)
    if any(known is claims for known, _ in naming.claimants):
        return
    naming.claimants.append((claims, main_task))
    naming.take(pool)


def stop_naming(pool: Any, claims: Claims) -> None:
    """Name no claims for this worker any more; the pool gets its own pipelines back from the last one."""
    naming = getattr(pool, _NAMING, None)
    if naming is None or not any(known is claims for known, _ in naming.claimants):
        return
    naming.claimants = [(known, task) for known, task in naming.claimants if known is not claims]
    if naming.claimants:
        naming.take(pool)
    else:
        delattr(pool, _NAMING)
        naming.give_back(pool)


_MakeKind = Callable[[Any], Any]
"""Makes the subclass of a pipeline class that names claims."""


def _named_pipeline(make_pipeline: Callable[..., Any], make_kind: _MakeKind) -> Callable[..., Any]:
    """Make what the pool's own factory makes, and give it another class."""
    kinds: dict[type, type] = {}

    def pipeline(*args: Any, **kwargs: Any) -> Any:
        pipe = make_pipeline(*args, **kwargs)
        kind = type(pipe)
        if kind not in kinds:
            kinds[kind] = make_kind(kind)
        pipe.__class__ = kinds[kind]
        return pipe

    return pipeline


def _quick_pipeline(pool: Any, make_pipeline: Callable[..., Any], make_kind: _MakeKind) -> Callable[..., Any] | None:
    """Make the pipeline of the other class at once, where the pool's way to make one is redis-py's own; else None.

    An object whose class was changed is slow for all its life, and arq makes three pipelines for every job.
    """
    own = type(pool).pipeline
    if not isinstance(own, FunctionType) or own.__module__ != "redis.asyncio.client":
        return None
    made = make_pipeline()
    naming = make_kind(type(made))

    def pipeline(transaction: bool = True, shard_hint: str | None = None) -> Any:
        return naming(pool.connection_pool, pool.response_callbacks, transaction, shard_hint)

    try:
        return pipeline if vars(pipeline()) == vars(made) else None
    except TypeError:  # a redis-py whose pipelines are made of something else
        return None


def _naming_for_one(claims: Claims) -> _MakeKind:
    """Make subclasses of pipeline classes that name claims for one worker, in as few steps as can be: every job passes here."""
    held, numbers = claims.held, tokens.numbers

    def make_kind(kind: Any) -> Any:
        plain_psetex, is_plain = kind.psetex, _lays_psetex_down(kind)

        def psetex(self: Any, name: Any, time_ms: Any, value: Any) -> Any:
            if value == _UNNAMED and type(name) is str:
                job_id = name.removeprefix(IN_PROGRESS)
                if job_id is not name:
                    value = held[job_id] = f"{claims.prefix}{tokens.prefix}{next(numbers)}"
                    if is_plain and self.explicit_transaction:
                        self.command_stack.append((("PSETEX", name, time_ms, value), {}))
                        return self
            return plain_psetex(self, name, time_ms, value)

        return _subclass(kind, psetex, [claims])

    return make_kind


def _naming_for_many(claimants: Sequence[_Claimant]) -> _MakeKind:
    """Make subclasses of pipeline classes that name each claim for the worker in whose task it is made."""

    def make_kind(kind: Any) -> Any:
        plain_psetex = kind.psetex

        def psetex(self: Any, name: Any, time_ms: Any, value: Any) -> Any:
            if value == _UNNAMED and type(name) is str and name.startswith(IN_PROGRESS):
                value = _claims_here(claimants).make(name.removeprefix(IN_PROGRESS))
            return plain_psetex(self, name, time_ms, value)

        return _subclass(kind, psetex, [claims for claims, _ in claimants])

    return make_kind


def _claims_here(claimants: Sequence[_Claimant]) -> Claims:
    task = asyncio.current_task()
    of_this_task = (claims for claims, main_task in reversed(claimants) if main_task is task)
    return next(of_this_task, claimants[-1][0])


def _subclass(kind: Any, psetex: Callable[..., Any], claims: Sequence[Claims]) -> Any:
    """Make the subclass; where one of these ``hears_ends``, it tells a run that arq is done with it."""
    plain_delete = kind.delete
    hearing = [one for one in claims if one.hears_ends]

    def delete(self: Any, *names: Any) -> Any:
        run = current.get()  # arq ends a job in the context in which it started it, unless a hook of the user's has lost that
        if isinstance(run, ArqRun) and run.outcome is None:
            run.complete()
            run.is_finished = run.is_finished or RETRY + run.job_id in names
        else:
            for name in names:
                if isinstance(name, str) and name.startswith(RETRY):
                    _tell_finished(name.removeprefix(RETRY), hearing)
        return plain_delete(self, *names)

    changed = {"psetex": psetex, "delete": delete} if hearing else {"psetex": psetex}
    keeping = [one for one in claims if one.keeps_tries]
    if keeping:
        changed |= _giving_back(kind, changed.get("delete", plain_delete), keeping)
    return type(kind.__name__, (kind,), {**changed, "__module__": kind.__module__})


def _giving_back(kind: Any, plain_delete: Callable[..., Any], keeping: Sequence[Claims]) -> dict[str, Callable[..., Any]]:
    """Make the commands with which arq gives a claim back: with it, in the same transaction, goes a try that is kept.

    arq deletes the claim alone where the job is to run again, or with a cron job lets it expire.
    """
    plain_pexpire = kind.pexpire

    def give_back(self: Any, name: Any) -> None:
        if type(name) is str and name.startswith(IN_PROGRESS):
            job_id = name.removeprefix(IN_PROGRESS)
            if any(claims.takes_back(job_id) for claims in keeping):
                self.incrby(RETRY + job_id, -1)

    def delete(self: Any, *names: Any) -> Any:
        if len(names) == 1:
            give_back(self, names[0])
        return plain_delete(self, *names)

    def pexpire(self: Any, name: Any, *rest: Any, **options: Any) -> Any:
        give_back(self, name)
        return plain_pexpire(self, name, *rest, **options)

    return {"delete": delete, "pexpire": pexpire}


def _tell_finished(job_id: str, hearing: Sequence[Claims]) -> None:
    for claims in hearing:
        run = claims.find_run(job_id)
        if run is not None:
            run.is_finished = True


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
