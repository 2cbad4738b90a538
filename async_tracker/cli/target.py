"""Which Redis and which namespace a command is about, as they were given on the command line."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was given; None is for the environment to say, and then for the defaults."""

    redis_url: str | None = None
    namespace: str | None = None
    arq_redis_url: str | None = None
    dramatiq_redis_url: str | None = None
    as_json: bool = False

    def under(self, nearer: "Target") -> "Target":
        """Combine what stands before the command with what stands after it, which wins.

        >>> Target(namespace="a", redis_url="redis://x").under(Target(namespace="b")).namespace
        'b'
        """
        return Target(
            redis_url=self.redis_url if nearer.redis_url is None else nearer.redis_url,
            namespace=self.namespace if nearer.namespace is None else nearer.namespace,
            arq_redis_url=self.arq_redis_url if nearer.arq_redis_url is None else nearer.arq_redis_url,
            dramatiq_redis_url=self.dramatiq_redis_url if nearer.dramatiq_redis_url is None else nearer.dramatiq_redis_url,
            as_json=self.as_json or nearer.as_json,
        )
