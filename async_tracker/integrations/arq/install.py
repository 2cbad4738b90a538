"""``tracker.install``: our hooks around the ones that are there. What arq reads when it makes its worker is left for arq to read."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from async_tracker.errors import ConfigError
from async_tracker.integrations.arq.choice import Choice
from async_tracker.integrations.arq.hooks import ArqHooks
from async_tracker.integrations.arq.jobs import Ctx, Hook
from async_tracker.integrations.arq.tracked_worker import JOB_HOOKS


def installed(hooks: ArqHooks, settings: Any, *, only: Any, ignore: Any) -> Any:
    """Install into a WorkerSettings class, in place, or into a dict of Worker arguments, as a new dict. A second time changes nothing."""
    choice = Choice.of(only=only, ignore=ignore)
    if isinstance(settings, Mapping):
        changed = {**settings, **_changes(hooks, settings, choice)}
        hooks.knows(changed)
        return changed
    if not isinstance(settings, type):
        raise ConfigError(
            f"install takes a WorkerSettings class or a dict of Worker arguments, not {settings!r}: write @tracker.install above the class"
        )
    for name, value in _changes(hooks, vars(settings), choice).items():
        setattr(settings, name, value)
    hooks.knows(settings)
    return settings


def _changes(hooks: ArqHooks, settings: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    if _is_installed(hooks, settings.get("on_startup")):
        return {}
    user = {name: settings.get(name) or None for name in ("on_startup", "on_shutdown", *JOB_HOOKS)}  # arq asks for their truth as well
    return {
        "on_startup": _both(hooks, partial(hooks.on_startup, choice=choice), user["on_startup"], user=user["on_startup"]),
        "on_shutdown": _both(hooks, user["on_shutdown"], hooks.on_shutdown, user=user["on_shutdown"]),
        **{kind: hooks.port(kind, user[kind]) for kind in JOB_HOOKS},
    }


def _is_installed(hooks: ArqHooks, hook: Any) -> bool:
    while hook is not None:
        if getattr(hook, "async_tracker_hooks", None) is hooks:
            return True
        hook = getattr(hook, "__wrapped__", None)
    return False


def _both(hooks: ArqHooks, first: Hook | None, second: Hook | None, *, user: Hook | None) -> Hook:
    """Call one hook after the other; what the user's raises passes through."""

    async def hook(ctx: Ctx) -> None:
        if first is not None:
            await first(ctx)
        if second is not None:
            await second(ctx)

    return hooks.marked(hook, user)
