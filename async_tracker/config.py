"""The settings, their defaults, their variables, and what is wrong with them.

Pure: an environment is a mapping that is handed in, and nothing is read at import.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from async_tracker.errors import ConfigError
from async_tracker.policy import DEFAULT_LIMITS, Limits, Ration

DEFAULT_REDIS_URL = "redis://localhost:6379/0"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a tracker; durations in seconds. Raises ConfigError when they cannot work together."""

    namespace: str = "async_tracker"
    instance_id: str | None = None
    queue: str | None = None
    heartbeat_interval: float = 5.0
    heartbeat_ttl: float = DEFAULT_LIMITS.heartbeat_ttl
    sweep_interval: float = 0.5
    disconnect_grace: float = DEFAULT_LIMITS.disconnect_grace
    silence_limit: float = DEFAULT_LIMITS.silence_limit
    stall_limit: float | None = DEFAULT_LIMITS.stall_limit
    watchdog: bool = True
    linger: float = 0.002
    gather: float = 0.05
    durable: bool = False
    hook_timeout: float = 0.25
    recover: bool = True
    max_recoveries: int = 3
    recovery_window: float = 259_200.0
    record_args: bool = False
    redact: Callable[[str], str] | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        if self.instance_id is not None and (not self.instance_id or _CONTROL.search(self.instance_id)):
            raise ConfigError(
                f"instance_id {self.instance_id!r} is a label: write some text without control characters, a pod name for example"
            )
        for name, text in (("instance_id", self.instance_id), ("queue", self.queue)):
            check_text(name, text or "")
        for name in ("heartbeat_interval", "heartbeat_ttl", "sweep_interval", "hook_timeout", "silence_limit", "recovery_window"):
            _check_number(name, getattr(self, name), above=0.0)
        for name in ("disconnect_grace", "linger", "gather"):
            _check_number(name, getattr(self, name), at_least=0.0)
        if self.stall_limit is not None:
            _check_number("stall_limit", self.stall_limit, above=0.0)
        self._check_together()

    def _check_together(self) -> None:
        if self.heartbeat_ttl < 2 * self.heartbeat_interval:  # one late beat must not kill a healthy instance
            raise ConfigError(
                f"heartbeat_ttl ({self.heartbeat_ttl} s) must be at least twice heartbeat_interval ({self.heartbeat_interval} s): "
                f"write heartbeat_ttl={2 * self.heartbeat_interval} or more, or beat more often"
            )
        if self.silence_limit < self.heartbeat_ttl:  # silence begins where the heartbeat is stale
            raise ConfigError(f"silence_limit ({self.silence_limit} s) must not be shorter than heartbeat_ttl ({self.heartbeat_ttl} s)")
        if self.stall_limit is not None and self.stall_limit < self.heartbeat_ttl:
            raise ConfigError(f"stall_limit ({self.stall_limit} s) must not be shorter than heartbeat_ttl ({self.heartbeat_ttl} s)")
        if type(self.max_recoveries) is not int or self.max_recoveries < 0:
            raise ConfigError(
                f"max_recoveries ({self.max_recoveries!r}) must be a whole number, 0 or more; 0 quarantines at the first death"
            )
        if isinstance(self.tags, str) or not all(isinstance(tag, str) for tag in self.tags):
            raise ConfigError(f"tags ({self.tags!r}) must be a tuple of strings: write tags=('blue', 'eu-west')")
        object.__setattr__(self, "tags", tuple(self.tags))
        for tag in self.tags:
            check_text("tags", tag)

    def limits(self) -> Limits:
        """Give what an instance with these settings is judged by."""
        return Limits(
            heartbeat_ttl=self.heartbeat_ttl,
            disconnect_grace=self.disconnect_grace,
            silence_limit=self.silence_limit,
            stall_limit=self.stall_limit,
        )

    def ration(self) -> Ration:
        """Give what the writes of an instance with these settings are rationed by."""
        return Ration(linger=self.linger, gather=self.gather, durable=self.durable)


SETTING_NAMES = tuple(item.name for item in dataclasses.fields(Settings))


def check_namespace(namespace: object) -> str:
    """Return what can be a namespace, of `Namespace` and of `Tracker` alike: text that UTF-8 can write, not empty, no control characters.

    Raises ConfigError for anything else.

    >>> check_namespace("naïve {app}")
    'naïve {app}'
    >>> check_namespace("")
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: namespace '' must be some text without control characters: write namespace="my_app"
    >>> check_namespace("app\\udcff")
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: namespace 'app\\udcff' holds what UTF-8 cannot write (a lone surrogate): write namespace="my_app"
    """
    if not isinstance(namespace, str) or not namespace or _CONTROL.search(namespace):
        raise ConfigError(f'namespace {namespace!r} must be some text without control characters: write namespace="my_app"')
    try:
        namespace.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f'namespace {namespace!r} holds what UTF-8 cannot write (a lone surrogate): write namespace="my_app"') from exc
    return namespace


def check_text(name: str, text: str) -> None:
    """Raise ConfigError for what cannot be written as UTF-8. Bytes that were none in a file's name or a variable can, as Python keeps them.

    >>> check_text("queue", "naïve"), check_text("queue", "\\udcff")
    (None, None)
    >>> check_text("queue", "\\ud800")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: queue '\\ud800' holds half a character (a lone surrogate), which cannot be written: write ...
    """
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise ConfigError(
            f"{name} {text!r} holds half a character (a lone surrogate), which cannot be written: "
            'write text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), or another name'
        ) from exc


def unknown_names(given: Mapping[str, Any], known: tuple[str, ...] | set[str], *, what: str) -> None:
    """Raise ConfigError for the first name that is not known, with the nearest one that is.

    >>> unknown_names({"heartbeat_intervall": 1}, SETTING_NAMES, what="setting")
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: unknown setting 'heartbeat_intervall': did you mean 'heartbeat_interval'?
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"unknown {what} {name!r}: {hint}")


def settings_from_env(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read every setting that has a ``TRACKER_…`` variable; the rest is left out. Raises ConfigError that names the variable.

    >>> settings_from_env({"TRACKER_NAMESPACE": "my_app", "TRACKER_RECOVER": "no", "TRACKER_TAGS": "blue, eu", "TRACKER_STALL_LIMIT": ""})
    {'namespace': 'my_app', 'stall_limit': None, 'recover': False, 'tags': ('blue', 'eu')}
    """
    found: dict[str, Any] = {}
    for item in dataclasses.fields(Settings):
        variable = f"TRACKER_{item.name.upper()}"
        if variable in environ and item.name != "redact":
            found[item.name] = _parse(variable, environ[variable], item.type)
    return found


def _parse(variable: str, text: str, wanted: Any) -> Any:
    kind = str(getattr(wanted, "__name__", wanted)) if isinstance(wanted, type) else str(wanted)
    text = text.strip()
    if "None" in kind and not text:
        return None
    if kind == "bool":
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ConfigError(f"{variable}={text!r} must be a yes or a no: write 1, true, yes, on or 0, false, no, off")
    if kind == "int" or kind.startswith("float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            raise ConfigError(f"{variable}={text!r} must be a number{'' if kind == 'int' else ' of seconds'}") from None
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _check_number(name: str, value: Any, *, above: float | None = None, at_least: float | None = None) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
        raise ConfigError(f"{name} ({value!r}) must be a number of seconds")
    if above is not None and value <= above:
        raise ConfigError(f"{name} ({value} s) must be more than {above:g} s")
    if at_least is not None and value < at_least:
        raise ConfigError(f"{name} ({value} s) must be at least {at_least:g} s")
