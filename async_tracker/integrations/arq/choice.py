"""Which functions are tracked: ``only=`` and ``ignore=`` of `Tracker.install`.

What they are is checked where they are written; the names in them when a worker starts, for only then it is known what it runs.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from async_tracker.config import unknown_names
from async_tracker.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Choice:
    """Names of functions: those that are tracked, or those that are not, or neither."""

    only: Collection[str] | None = None
    ignore: Collection[str] | None = None

    @classmethod
    def of(cls, *, only: Any, ignore: Any) -> "Choice":
        """Take what was written. Raises ConfigError, which says what to write instead, for what cannot be meant.

        >>> Choice.of(only="ping", ignore=None)
        Traceback (most recent call last):
        async_tracker.errors.ConfigError: only='ping' must be a set of function names: write only={"ping"}
        """
        if only is not None and ignore is not None:
            raise ConfigError("install takes only= or ignore=, not both: they would contradict each other")
        return cls(only=_names("only", only), ignore=_names("ignore", ignore))

    def fault(self, names: Collection[str]) -> str | None:
        """Tell what is wrong with it for a worker that runs these functions; None where nothing is.

        >>> Choice(ignore={"pong"}).fault(["ping", "send"])
        "unknown function in ignore= 'pong': did you mean 'ping'?"
        >>> Choice(ignore={"ping"}).fault(["ping", "send"])
        """
        try:
            for what, given in (("only", self.only), ("ignore", self.ignore)):
                unknown_names(dict.fromkeys(_names(what, given) or ()), set(names), what=f"function in {what}=")
        except ConfigError as exc:
            return str(exc)
        return None

    def tracks(self, name: str) -> bool:
        """Tell whether a function is to be tracked.

        >>> [Choice(only={"a"}).tracks("a"), Choice(only={"a"}).tracks("b"), Choice(ignore={"a"}).tracks("a"), Choice().tracks("a")]
        [True, False, False, True]
        """
        if self.only is not None:
            return name in self.only
        return self.ignore is None or name not in self.ignore


def _names(what: str, given: Any) -> Collection[str] | None:
    """Check the types. What can be read again is kept as it is: a set may be filled by modules that are imported later."""
    if given is None:
        return None
    if isinstance(given, str):
        raise ConfigError(f'{what}={given!r} must be a set of function names: write {what}={{"{given}"}}')
    if not isinstance(given, Iterable):
        raise ConfigError(f'{what}={given!r} must be a set of function names: write {what}={{"send_email"}}')
    names = given if isinstance(given, Collection) else tuple(given)
    for name in names:
        if not isinstance(name, str):
            shown = getattr(name, "__name__", "send_email")
            raise ConfigError(f'{what}= has {name!r} in it, and must be a set of function names, as text: write {what}={{"{shown}"}}')
    return names
