"""The worker libraries that come with this package, and what people write to name the Redis of each.

A library outside this package is added to one tracker, by ``tracker.footing.registry.add(Library(...))``; what is made of its name
here holds for it too. Pure: nothing of a worker library and no Redis client is loaded before a tracker is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLibrary:
    """One row of the table of known libraries."""

    name: str
    """As it stands in records and leases: letters, digits and underscores, for a keyword argument is made of it."""
    home: str
    """The function that describes it, as ``module:function``. It takes a tracker and returns a `Library`."""
    is_presumed: bool = False
    """Whether `doctor` expects its jobs on the tracker's Redis while no worker of any library is registered."""

    def library(self, tracker: Any) -> Any:
        """Describe the library to a tracker."""
        module, _, function = self.home.partition(":")
        return getattr(import_module(module), function)(tracker)


KNOWN = (
    KnownLibrary(name="arq", home="async_tracker.integrations.arq.library:library", is_presumed=True),
    KnownLibrary(name="dramatiq", home="async_tracker.integrations.dramatiq.library:library"),
)
"""One row is all that a new library needs outside its own folder."""


def redis_argument(library: str) -> str:
    """Name the keyword of `Tracker` that takes a client or a url of the library's Redis.

    >>> redis_argument("listq")
    'listq_redis'
    """
    return f"{library}_redis"


def redis_variable(library: str) -> str:
    """Name the environment variable with the url of the library's Redis.

    >>> redis_variable("listq")
    'TRACKER_LISTQ_REDIS_URL'
    """
    return f"TRACKER_{library.upper()}_REDIS_URL"


def redis_option(library: str) -> str:
    """Name the option of every command with the url of the library's Redis.

    >>> redis_option("listq"), redis_option("list_q")
    ('--listq-redis-url', '--list-q-redis-url')
    """
    return f"--{library.replace('_', '-')}-redis-url"


def redis_option_help(library: str) -> str:
    """Describe that option.

    >>> redis_option_help("listq")
    "listq's Redis, if it is not the tracker's. [TRACKER_LISTQ_REDIS_URL]"
    """
    return f"{library}'s Redis, if it is not the tracker's. [{redis_variable(library)}]"


def redis_arguments() -> dict[str, str]:
    """Give the keywords of `Tracker` that name the Redis of a known library, each with the library."""
    return {redis_argument(known.name): known.name for known in KNOWN}


def is_presumed(library: str) -> bool:
    """Tell whether `doctor` expects the jobs of a library where no worker of any is registered."""
    return any(known.is_presumed for known in KNOWN if known.name == library)


def by_argument(redis_of: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what was given for each library into keywords of `Tracker`.

    >>> by_argument({"listq": "redis://list:6379/0"})
    {'listq_redis': 'redis://list:6379/0'}
    """
    return {redis_argument(library): given for library, given in redis_of.items()}
