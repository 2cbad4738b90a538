"""``tracker.install``: our hooks around the ones that are there, functions and cron jobs wrapped."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from time import monotonic
from typing import Any

from async_tracker.config import unknown_names
from async_tracker.errors import ConfigError
from async_tracker.instance.runs import current, shown_args
from async_tracker.integrations.arq.hooks import ArqHooks
from async_tracker.integrations.arq.jobs import Ctx, Hook, WorkerFacts
from async_tracker.integrations.arq.outcomes import ending_of

_ARQ_JOB_TIMEOUT = 300.0
_ARQ_MAX_JOBS = 10


def installed(hooks: ArqHooks, settings: Any, *, only: Collection[str] | None, ignore: Collection[str] | None) -> Any:
    """Install into a WorkerSettings class, in place, or into a dict of Worker arguments, as a new dict. A second time changes nothing."""
    if isinstance(settings, Mapping):
        return {**settings, **_changes(hooks, settings, only, ignore)}
    if not isinstance(settings, type):
        raise ConfigError(
            f"install takes a WorkerSettings class or a dict of Worker arguments, not {settings!r}: write @tracker.install above the class"
        )
    for name, value in _changes(hooks, vars(settings), only, ignore).items():
        setattr(settings, name, value)
    return settings


def _changes(hooks: ArqHooks, settings: Mapping[str, Any], only: Collection[str] | None, ignore: Collection[str] | None) -> dict[str, Any]:
    if _is_installed(hooks, settings.get("on_startup")):
        return {}
    from arq.worker import func  # noqa: PLC0415 - arq is an extra: whoever installs into its settings has it

    functions = [func(function) for function in settings.get("functions") or ()]
    cron_jobs = list(settings.get("cron_jobs") or ())
    tracked = _tracked([item.name for item in (*functions, *cron_jobs)], only, ignore)
    hooks.facts = _facts(settings, tuple(item.name for item in (*functions, *cron_jobs)))
    changes: dict[str, Any] = {
        "on_startup": _both(hooks, hooks.on_startup, settings.get("on_startup")),
        "on_shutdown": _both(hooks, settings.get("on_shutdown"), hooks.on_shutdown),
        "on_job_start": _around(hooks, settings.get("on_job_start"), hooks.jobs.start_hook),
        "on_job_end": _around(hooks, settings.get("on_job_end"), hooks.jobs.end_hook),
        "after_job_end": _around(hooks, settings.get("after_job_end"), hooks.jobs.after_hook),
    }
    if functions:
        changes["functions"] = [dataclasses.replace(item, coroutine=_wrapped(hooks, item, tracked)) for item in functions]
    if cron_jobs:
        changes["cron_jobs"] = [_cron(hooks, item, tracked) for item in cron_jobs]
    return changes


def _tracked(names: list[str], only: Collection[str] | None, ignore: Collection[str] | None) -> set[str]:
    if only is not None and ignore is not None:
        raise ConfigError("install takes only= or ignore=, not both: they would contradict each other")
    for given, what in ((only, "only"), (ignore, "ignore")):
        if isinstance(given, str):
            raise ConfigError(f'{what}={given!r} must be a set of function names: write {what}={{"{given}"}}')
        unknown_names(dict.fromkeys(given or ()), tuple(names), what=f"function in {what}=")
    return set(only) if only is not None else set(names) - set(ignore or ())


def _facts(settings: Mapping[str, Any], functions: tuple[str, ...]) -> WorkerFacts:
    timeout = settings.get("job_timeout", _ARQ_JOB_TIMEOUT)
    pool = settings.get("redis_pool")
    return WorkerFacts(
        functions=functions,
        queue=settings.get("queue_name") or getattr(pool, "default_queue_name", None),
        concurrency=settings.get("max_jobs", _ARQ_MAX_JOBS),
        job_timeout=timeout.total_seconds() if isinstance(timeout, timedelta) else timeout,
        allow_abort_jobs=bool(settings.get("allow_abort_jobs", False)),
        retry_jobs=bool(settings.get("retry_jobs", True)),
        serializer=settings.get("job_serializer"),
        is_installed=True,
    )


def _is_installed(hooks: ArqHooks, hook: Any) -> bool:
    while hook is not None:
        if getattr(hook, "async_tracker_hooks", None) is hooks:
            return True
        hook = getattr(hook, "__wrapped__", None)
    return False


def _both(hooks: ArqHooks, first: Hook | None, second: Hook | None) -> Hook:
    """Call one hook after the other; what the user's raises passes through."""

    async def hook(ctx: Ctx) -> None:
        if first is not None:
            await first(ctx)
        if second is not None:
            await second(ctx)

    return _marked(hooks, hook, second if _is_ours(hooks, first) else first)


def _around(hooks: ArqHooks, user: Hook | None, made: Callable[[Hook | None], Hook]) -> Hook:
    """Make our hook around the user's."""
    return _marked(hooks, made(user), user)


def _is_ours(hooks: ArqHooks, hook: Hook | None) -> bool:
    return getattr(hook, "__self__", None) is hooks


def _marked(hooks: ArqHooks, hook: Any, user: Hook | None) -> Hook:
    hook.async_tracker_hooks = hooks
    hook.__wrapped__ = user
    result: Hook = hook
    return result


def _wrapped(hooks: ArqHooks, item: Any, tracked: set[str]) -> Any:
    coroutine, name = item.coroutine, item.name
    timeout = item.timeout_s if item.timeout_s is not None else hooks.facts.job_timeout
    if name not in tracked:
        return _ignored(hooks, coroutine)
    settings, ctx_key = hooks.settings, hooks.ctx_key
    record_args = settings.record_args

    @functools.wraps(coroutine)
    async def tracked_function(*args: Any, **kwargs: Any) -> Any:
        run = (args[0] if args else kwargs.get("ctx", {})).get(ctx_key)
        if run is None:
            return await coroutine(*args, **kwargs)
        run.function, run.timeout = name, timeout
        current.set(run)
        if record_args:
            run.args = shown_args(args[1:], kwargs, settings.redact)
        if run.ctx is None and run.is_taken_in and run.sent:
            run.keeper.touch(run)
        try:
            result = await coroutine(*args, **kwargs)
        except BaseException as exc:
            run.ended_mono_ms = monotonic() * 1000.0
            run.ending = ending_of(exc)
            raise
        run.ended_mono_ms = monotonic() * 1000.0
        run.went_well = True
        return result

    return tracked_function


def _ignored(hooks: ArqHooks, coroutine: Any) -> Any:
    @functools.wraps(coroutine)
    async def ignored_function(ctx: Ctx, *args: Any, **kwargs: Any) -> Any:
        run = ctx.pop(hooks.ctx_key, None)
        if run is not None:
            hooks.jobs.ignore(run)
        return await coroutine(ctx, *args, **kwargs)

    return ignored_function


def _cron(hooks: ArqHooks, item: Any, tracked: set[str]) -> Any:
    wrapped = copy.copy(item)
    wrapped.coroutine = _wrapped(hooks, item, tracked)
    return wrapped
