"""What the proxies have in common: names, rules, the methods of a client's own class, and no others.

Nothing is passed on because it happens to be there. A method of redis-py reaches the server only through the proxy's own
``execute_command``; a method that a subclass of redis-py's client adds (``ArqRedis.enqueue_job``) is bound to the proxy, so that it
does, too; and whatever else there is on the client is an AttributeError.
"""

from functools import lru_cache
from types import FunctionType
from typing import Any

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace.naming import Naming
from async_tracker.namespace.refusals import REFUSED, REFUSED_FAMILIES
from async_tracker.namespace.rules import Rules, register

REDIS_STATE = frozenset(
    [
        *("auto_close_connection_pool", "cache", "cluster_error_retry_attempts", "cluster_response_callbacks", "command_flags"),
        *("commands_parser", "connection", "connection_kwargs", "encoder", "node_flags", "nodes_manager", "read_from_replicas"),
        *("response_callbacks", "result_callbacks", "retry", "single_connection_client"),
    ]
)
"""Attributes with which redis-py talks to the server: a method that is bound to the proxy must not find them."""

PASSED_ON = frozenset(
    [
        *("himport_discard", "himport_discard_all", "himport_prepare", "himport_registry", "get_retry", "set_retry"),
        *("get_default_node", "get_node", "get_nodes", "get_primaries", "get_random_node", "get_replicas"),
        *("ALL_NODES", "DEFAULT_NODE", "PRIMARIES", "RANDOM", "REPLICAS"),
    ]
)
"""What redis-py's clients have that concerns connections and nodes (for ``target_nodes``) and no keys."""

ALLOWED_FOR = {"arq": ("DBSIZE",)}
"""Refused commands that a client's class cannot do without. An arq worker logs the size of the database when it starts."""


@lru_cache(maxsize=256)
def methods_of_subclass(client_type: Any) -> dict[str, Any]:
    """Return what a subclass of redis-py's client defines by itself, the most derived definition of each name."""
    found: dict[str, Any] = {}
    for cls in client_type.__mro__:
        if cls.__module__.partition(".")[0] == "redis":
            break
        for name, value in vars(cls).items():
            if not name.startswith("__"):
                found.setdefault(name, value)
    return found


def _own_methods(client: object) -> dict[str, Any]:
    client_type: Any = type(client)
    return methods_of_subclass(client_type)


def allowed_for(client_type: type) -> frozenset[str]:
    """Return the refused commands that pass for clients of this class."""
    modules = {cls.__module__.partition(".")[0] for cls in client_type.__mro__}
    return frozenset(name for module in modules for name in ALLOWED_FOR.get(module, ()))


class Proxy:
    """A client seen through a namespace. ``redis`` is the client underneath: the way out, on purpose."""

    redis: Any

    def __init__(self, client: Any, rules: Rules) -> None:
        self.redis = client
        self._rules = rules
        self._plans = rules.plans
        own = type(self)
        for name, value in _own_methods(client).items():
            # Where a subclass overrides a command's method, its override counts; the proxy's own methods call the client's themselves.
            if isinstance(value, FunctionType) and hasattr(own, name) and not hasattr(Proxy, name) and name not in vars(own):
                self.__dict__[name] = value.__get__(self)

    @property
    def __class__(self) -> Any:
        # redis-py asks with isinstance whether a client is a pipeline and which protocol it speaks; the answer is the client's.
        return type(self.redis)

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("the class of a namespace cannot be changed")

    @property
    def namespace(self) -> str:
        """The name, without the ``:`` that parts it from a key."""
        return self._rules.names.namespace

    def full_key(self, key: Any) -> bytes:
        """Tell what a key is called on the server."""
        return self._rules.names.full_key(key)

    @staticmethod
    def register(command: str, keys: str) -> None:
        """Say where the keys of a command are that is in no table (of a module, or newer than this library).

        ``keys``: ``"1"`` one key, ``"1:"`` all arguments, ``"1:-1"`` all but the last, ``"1::2"`` every second, ``"#2"`` their number
        at 2 and then the keys, ``"1 #2"`` several of these, ``"-"`` none. It holds for all namespaces of the process.
        Raises ConfigError if it is no such text, UnsupportedCommand for a command that is refused or known to be otherwise.
        """
        register(command, keys)

    @property
    def connection_pool(self) -> Any:
        """The client's pool, of which redis-py asks the encoding and the protocol. Commands sent by its connections are not confined."""
        return self.redis.connection_pool

    def get_encoder(self) -> Any:
        """The client's encoder."""
        return self.redis.get_encoder()

    def get_connection_kwargs(self) -> Any:
        """The options with which the client connects."""
        return self.redis.get_connection_kwargs()

    def set_response_callback(self, command: str, callback: Any) -> None:
        """Set the callback for a command's reply on the client underneath, so for all who share it."""
        self.redis.set_response_callback(command, callback)

    def json(self, *args: Any, **options: Any) -> Any:
        """The commands of RedisJSON. Its own ``pipeline`` is refused: ``pipeline().json()`` queues the same commands."""
        return _without_pipeline(super(), "json", args, options)

    def ts(self, *args: Any, **options: Any) -> Any:
        """The commands of RedisTimeSeries. Its own ``pipeline`` is refused: ``pipeline().ts()`` queues the same commands."""
        return _without_pipeline(super(), "ts", args, options)

    def ft(self, *args: Any, **options: Any) -> Any:
        """Refused: UnsupportedCommand says why."""
        raise UnsupportedCommand(f"search is refused by the namespace {self.namespace!r}: {REFUSED_FAMILIES['FT.']}")

    def graph(self, *args: Any, **options: Any) -> Any:
        """Refused: UnsupportedCommand says why."""
        raise UnsupportedCommand(f"graphs are refused by the namespace {self.namespace!r}: {REFUSED_FAMILIES['GRAPH.']}")

    def monitor(self) -> Any:
        """Refused: UnsupportedCommand says why."""
        raise UnsupportedCommand(f"MONITOR is refused by the namespace {self.namespace!r}, and nothing was sent: {REFUSED['MONITOR']}")

    def keyspace_notifications(self, *args: Any, **options: Any) -> Any:
        """Tell of changes to the namespace's own keys (redis-py 8 and newer; the keys come without the namespace)."""
        make = getattr(type(self.redis), "keyspace_notifications", None)
        if make is None:
            raise AttributeError("keyspace_notifications needs redis-py 8; subscribe to '__keyspace@<db>__:<key>' by pubsub() instead")
        return make(self, *args, **options)

    def __getattr__(self, name: str) -> Any:
        client = self.__dict__.get("redis")
        if client is not None and not name.startswith("__"):
            client_type = type(client)
            own = _own_methods(client)
            if name in PASSED_ON:
                return getattr(client, name)
            if name in own:
                value = own[name]
                return value.__get__(self, client_type) if hasattr(value, "__get__") else value
            if own and name in vars(client) and name not in REDIS_STATE and not name.startswith("_"):
                return vars(client)[name]
        raise AttributeError(
            f"a {type(self).__name__} has no {name!r}: what cannot be confined to the namespace is not passed on; "
            "the client underneath is its attribute 'redis'"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.redis!r}, {self.namespace!r})"


def _without_pipeline(commands: Any, module: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Make a module's object. redis-py gives it a pipeline that is built around the proxy, on the client's bare connections."""
    made = getattr(commands, module)(*args, **options)

    def pipeline(*args: Any, **options: Any) -> Any:
        raise UnsupportedCommand(f"{module}().pipeline() goes past the namespace: write pipeline().{module}() instead")

    made.pipeline = pipeline
    return made


def rules_for(client: Any, namespace: str, allow: Any) -> tuple[Any, Rules]:
    """Return the client underneath and the rules of a namespace on it. A namespace in a namespace is one with both names.

    ``Namespace(Namespace(client, "a"), "b")`` writes ``a:b:key``: no proxy stands on another.
    """
    allowed = set(allow)
    if issubclass(type(client), Proxy):
        outer = client
        client = outer.redis
        Naming(namespace, _plain)
        namespace = f"{outer.namespace}:{namespace}"
        allowed |= outer._rules.allowed
    names = Naming(namespace, client.get_encoder().encode)
    return client, Rules(names, allowed | allowed_for(type(client)))


def _plain(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
