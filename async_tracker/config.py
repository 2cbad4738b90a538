"""The settings, their defaults, their variables, and what is wrong with them.

Pure: an environment is a mapping that is handed in, and nothing is read at import.
"""

import dataclasses
import difflib
import inspect
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex

from async_tracker.errors import ConfigError
from async_tracker.policy import DEFAULT_LIMITS, Limits, Ration

DEFAULT_REDIS_URL = "redis://localhost:6379/0"

LONGEST_SECONDS = 315_360_000.0
"""Ten years: Redis keeps a lifetime in ms, and a date has an end."""
_SHORTEST = 0.01
"""Seconds between two beats, or two sweeps."""
_MOST_RECOVERIES = 1_000_000
_VERSION_LENGTH = 200
CONTROLS = ("quiet", "resume", "stop", "stacks", "abort")
"""What people can order an instance to do."""
KEPT_TRIES = 20
"""How many tries of one job are kept within ``recovery_window`` where `keep_tries` is True."""
_MOST_KEPT = 1_000
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
    version: str | None = None
    telemetry: bool = False
    hook_timeout: float = 0.25
    control: bool | frozenset[str] = True
    keep_tries: bool | int = False
    recover: bool = True
    max_recoveries: int = 3
    recovery_window: float = 259_200.0
    record_args: bool = False
    redact: Callable[[str], str] | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "namespace", str.__str__(check_namespace(self.namespace)))
        if self.instance_id is not None and (
            not isinstance(self.instance_id, str) or not self.instance_id or _CONTROL.search(self.instance_id)
        ):
            raise ConfigError(
                f"instance_id {self.instance_id!r} is a label: write some text without control characters, a pod name for example"
            )
        if self.queue is not None and not isinstance(self.queue, str):
            raise ConfigError(f"queue ({self.queue!r}) must be the name of a queue, as text: write queue='mail'")
        if self.version is not None and (
            not isinstance(self.version, str) or not 0 < len(self.version) <= _VERSION_LENGTH or _CONTROL.search(self.version)
        ):
            raise ConfigError(
                f"version ({shown(self.version)}) must be text of at most {_VERSION_LENGTH} characters, without control characters: "
                "write what your team calls the deploy, version='2026-07-29.1' or the commit for example"
            )
        for name, text in (("instance_id", self.instance_id), ("queue", self.queue), ("version", self.version)):
            check_text(name, text or "")
        for name in ("watchdog", "durable", "telemetry", "recover", "record_args"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name} ({getattr(self, name)!r}) must be True or False: write {name}=False, not a text or a number")
        for name in ("heartbeat_interval", "sweep_interval"):
            self._take_seconds(name, above=0.0, shortest=_SHORTEST)
        for name in ("heartbeat_ttl", "hook_timeout", "silence_limit", "recovery_window"):
            self._take_seconds(name, above=0.0, shortest=0.001)
        self._take_seconds("disconnect_grace", at_least=0.0)
        for name in ("linger", "gather"):
            self._take_seconds(name, at_least=0.0, longest=60.0)
        if self.stall_limit is not None:
            self._take_seconds("stall_limit", above=0.0, never=True)
        if self.redact is not None and (not callable(self.redact) or inspect.iscoroutinefunction(self.redact)):
            raise ConfigError(f"redact ({self.redact!r}) must be a plain function from text to text: write redact=lambda text: ...")
        self._take_control()
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
        is_whole = isinstance(self.max_recoveries, SupportsIndex) and not isinstance(self.max_recoveries, bool)
        if not is_whole or not 0 <= operator.index(self.max_recoveries) <= _MOST_RECOVERIES:
            raise ConfigError(
                f"max_recoveries ({self.max_recoveries!r}) must be a whole number, 0 or more, {_MOST_RECOVERIES} at most; "
                "0 quarantines at the first death"
            )
        object.__setattr__(self, "max_recoveries", operator.index(self.max_recoveries))
        object.__setattr__(self, "keep_tries", _kept_tries(self.keep_tries))
        is_many = isinstance(self.tags, Iterable) and not isinstance(self.tags, str | bytes | Mapping)
        tags: tuple[Any, ...] = tuple(self.tags) if is_many else ()
        if not is_many or not all(isinstance(tag, str) for tag in tags):
            raise ConfigError(f"tags ({self.tags!r}) must be a tuple of strings: write tags=('blue', 'eu-west')")
        object.__setattr__(self, "tags", tags)
        for tag in self.tags:
            check_text("tags", tag)

    def _take_control(self) -> None:
        """Keep which orders an instance takes as a truth, or as a set of their names."""
        if type(self.control) is bool:
            return
        names: Any = self.control
        is_many = isinstance(names, Iterable) and not isinstance(names, str | bytes | Mapping)
        if not is_many or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"control ({shown(names)}) must be True, False, or the orders to take: write control={{'quiet', 'resume'}}")
        unknown_names(dict.fromkeys(names), CONTROLS, what="order")
        object.__setattr__(self, "control", frozenset(names))

    def takes(self, order: str) -> bool:
        """Tell whether an instance with these settings takes orders of this kind.

        >>> Settings(control={"quiet", "resume"}).takes("stop"), Settings().takes("stop")
        (False, True)
        """
        named = "quiet" if order == "idle" else order  # who may quiet an instance may ask when it is idle
        return self.control if isinstance(self.control, bool) else named in self.control

    def _take_seconds(
        self,
        name: str,
        *,
        above: float | None = None,
        at_least: float | None = None,
        shortest: float | None = None,
        longest: float | None = None,
        never: bool = False,
    ) -> None:
        """Check a duration, and keep it as a plain number. ``never``: None is what says that it has no end."""
        value = getattr(self, name)
        number = plain_number(value)
        if number is None:
            raise ConfigError(f"{name} ({shown(value)}) must be a number of seconds")
        _check_number(name, number, above=above, at_least=at_least)
        if shortest is not None and number < shortest:
            raise ConfigError(f"{name} ({number} s) must be at least {shortest:g} s: Redis could not follow, or count in ms")
        longest = LONGEST_SECONDS if longest is None else longest
        if number > longest:
            hint = f"write {name}=None for never" if never else f"write {name}={longest:g} or less"
            raise ConfigError(f"{name} ({shown(value)} s) must be at most {longest:g} s: {hint}")
        object.__setattr__(self, name, number)

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


def _kept_tries(value: Any) -> int:
    """Give the number of tries that may be kept; True is the usual number. Raises ConfigError.

    >>> _kept_tries(False), _kept_tries(True), _kept_tries(5)
    (0, 20, 5)
    """
    if isinstance(value, bool):
        return KEPT_TRIES if value else 0
    if not isinstance(value, SupportsIndex) or not 0 <= operator.index(value) <= _MOST_KEPT:
        raise ConfigError(
            f"keep_tries ({shown(value)}) must be True, False or a whole number from 0 to {_MOST_KEPT}: "
            f"write keep_tries=True for {KEPT_TRIES} tries of one job"
        )
    return operator.index(value)


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


def hash_tag(namespace: str) -> str | None:
    """Give what keeps all keys of a namespace in one slot of a cluster; None where nothing does.

    >>> hash_tag("{my_app}"), hash_tag("eu{my_app}:x"), hash_tag("my_app"), hash_tag("{}my{app}")
    ('my_app', 'my_app', None, None)
    """
    tag, closed, _ = namespace.partition("{")[2].partition("}")
    return tag if tag and closed else None


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
            near = difflib.get_close_matches(str(name), list(known), n=1)
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
    if "frozenset" in kind and text.lower() not in _TRUE | _FALSE:
        names = frozenset(part.strip() for part in text.split(",") if part.strip())
        if not names:
            raise ConfigError(f"{variable}={text!r} must be a yes, a no, or the orders to take: write {variable}=quiet,resume")
        return names
    if kind == "bool | int":
        if text.lower() in _TRUE | _FALSE and text not in ("0", "1"):
            return text.lower() in _TRUE
        if not text.isdecimal():
            raise ConfigError(f"{variable}={text!r} must be a yes, a no or a whole number: write yes for {KEPT_TRIES} tries of one job")
        return int(text)
    if kind.startswith("bool"):
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


def plain_number(value: Any) -> float | None:
    """Make a plain number of one that is none of text or truth; None for NaN, too.

    >>> import decimal
    >>> [plain_number(value) for value in (5, decimal.Decimal("0.5"), True, "5", float("nan"), 10**400)]
    [5, 0.5, None, None, None, inf]
    """
    if isinstance(value, bool | str | bytes | bytearray) or type(value).__name__ in ("bool_", "bool"):
        return None
    try:
        number = value if type(value) is int else float(value)
        float(number)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # whatever another program's object raises, it is no number
        return None
    return None if number != number else number


def shown(value: Any) -> str:
    """Write a value that was given, for an error: 40 characters at most.

    >>> shown("five"), shown(10**400), len(shown("x" * 100))
    ("'five'", 'inf', 40)
    """
    text = f"{float('inf')}" if type(value) is int and value.bit_length() > 64 else repr(value)  # Python refuses to write a very long one
    return text if len(text) <= 40 else text[:39] + "…"


def _check_number(name: str, value: float, *, above: float | None = None, at_least: float | None = None) -> None:
    if above is not None and value <= above:
        raise ConfigError(f"{name} ({value} s) must be more than {above:g} s")
    if at_least is not None and value < at_least:
        raise ConfigError(f"{name} ({value} s) must be at least {at_least:g} s")
