"""Which Redis and which namespace a command is about, as they were given on the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was given. For what is None or missing the environment decides, and then the default."""

    redis_url: str | None = None
    namespace: str | None = None
    library_urls: Mapping[str, str] = field(default_factory=dict)
    """The url of the Redis of each worker library for which one was given, by the library's name."""
    as_json: bool = False

    def under(self, nearer: "Target") -> "Target":
        """Combine what stands before the command with what stands after it, which wins.

        >>> Target(namespace="a", redis_url="redis://x").under(Target(namespace="b")).namespace
        'b'
        >>> Target(library_urls={"arq": "redis://x"}).under(Target(library_urls={"listq": "redis://y"})).library_urls
        {'arq': 'redis://x', 'listq': 'redis://y'}
        """
        return Target(
            redis_url=self.redis_url if nearer.redis_url is None else nearer.redis_url,
            namespace=self.namespace if nearer.namespace is None else nearer.namespace,
            library_urls={**self.library_urls, **nearer.library_urls},
            as_json=self.as_json or nearer.as_json,
        )
