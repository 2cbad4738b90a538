"""The fence: arq's own claim carries the token of the run that holds it.

arq marks a job that runs by writing ``b'1'`` into ``arq:in-progress:{job}`` and only ever tests whether that key exists. From
start-up on, the pipelines of the worker's pool write ``{instance}:{run}`` instead, in the same command: no further cost, and no
moment in which a claim has no name. Everything else goes through unchanged.
"""

from collections.abc import Callable
from typing import Any

from async_tracker.integrations.arq.names import IN_PROGRESS, RETRY
from async_tracker.runs import new_run

_UNNAMED = b"1"


_UNSTARTED_KEPT = 1_000
"""Claims that are remembered until their job starts. A claim that another worker won leaves an entry behind: the oldest go."""


class Claims:
    """The claims that this process has made and whose jobs have not started yet: job id -> run token.

    ``on_finish`` hears of every job whose last pipeline removes its tries: then arq is done with it, else it will run again.
    """

    def __init__(self, instance_id: Callable[[], str]) -> None:
        self._instance_id = instance_id
        self._held: dict[str, tuple[str, str]] = {}
        self.on_finish: Callable[[str], None] = _ignore

    def claim(self, job_id: str) -> str:
        """Name a claim that is about to be written. Returns what stands in the key."""
        instance_id, run = self._instance_id(), new_run()
        self._held[job_id] = (instance_id, run)
        if len(self._held) > _UNSTARTED_KEPT:
            del self._held[next(iter(self._held))]
        return f"{instance_id}:{run}"

    def take(self, job_id: str) -> str | None:
        """The job starts: give the run token of its claim; None when it was not claimed here."""
        held = self._held.pop(job_id, None)
        return held[1] if held is not None else None

    def released(self, job_id: str) -> None:
        """arq deletes the claim."""
        self._held.pop(job_id, None)

    def held(self) -> list[tuple[str, str, str]]:
        """Give the claims whose jobs have not started: job id, instance id, run."""
        return [(job_id, instance_id, run) for job_id, (instance_id, run) in self._held.items()]


def _ignore(job_id: str) -> None:
    """Nobody asked."""


def name_claims(pool: Any, claims: Claims) -> None:
    """Make the pool's pipelines write named claims from here on. A second call for the same claims changes nothing."""
    if getattr(pool, "_async_tracker_claims", None) is claims:
        return
    make_pipeline = pool.pipeline

    def pipeline(*args: Any, **kwargs: Any) -> Any:
        pipe = make_pipeline(*args, **kwargs)
        pipe.__class__ = _naming(type(pipe))
        pipe._async_tracker_claims = claims
        return pipe

    pool.pipeline = pipeline
    pool._async_tracker_claims = claims
    pool._async_tracker_pipeline = make_pipeline


def stop_naming(pool: Any, claims: Claims) -> None:
    """Give the pool its own pipelines back."""
    if getattr(pool, "_async_tracker_claims", None) is claims:
        pool.pipeline = pool._async_tracker_pipeline
        pool._async_tracker_claims = None


_classes: dict[type, type] = {}


def _naming(kind: type) -> type:
    """Make, once, the subclass of a pipeline class that names claims."""
    if kind not in _classes:
        _classes[kind] = type(
            kind.__name__, (kind,), {"psetex": _psetex, "delete": _delete, "pexpire": _pexpire, "__module__": kind.__module__}
        )
        _classes[_classes[kind]] = _classes[kind]
    return _classes[kind]


def _job_of(name: Any, prefix: str) -> str | None:
    return name[len(prefix) :] if isinstance(name, str) and name.startswith(prefix) else None


def _psetex(self: Any, name: Any, time_ms: Any, value: Any) -> Any:
    job_id = _job_of(name, IN_PROGRESS)
    if job_id is not None and value == _UNNAMED:
        value = self._async_tracker_claims.claim(job_id)
    return super(type(self), self).psetex(name, time_ms, value)


def _delete(self: Any, *names: Any) -> Any:
    for name in names:
        job_id = _job_of(name, IN_PROGRESS)
        if job_id is not None:
            self._async_tracker_claims.released(job_id)
        job_id = _job_of(name, RETRY)
        if job_id is not None:
            self._async_tracker_claims.on_finish(job_id)
    return super(type(self), self).delete(*names)


def _pexpire(self: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
    job_id = _job_of(name, IN_PROGRESS)
    if job_id is not None:  # a cron job that has ended: arq keeps the key for a minute on purpose
        self._async_tracker_claims.released(job_id)
    return super(type(self), self).pexpire(name, *args, **kwargs)
