"""What the proxies have in common: names, rules, the methods of a client's own class, and no others.

Nothing is passed on because it happens to be there. A method of redis-py reaches the server only through the proxy's own
``execute_command``; a method that a subclass of redis-py's client adds (``ArqRedis.enqueue_job``) is bound to the proxy, so that it
does, too; and whatever else there is on the client is an AttributeError.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Self, TypeVar

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace.naming import Naming
from async_tracker.namespace.refusals import REFUSED, REFUSED_FAMILIES
from async_tracker.namespace.rules import Rules, register

T = TypeVar("T")

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


_NOT_TO_BE_MOVED = (
    "a namespace cannot be pickled, nor copied deeply: it stands on a client with open connections. "
    "Hand over its name, and make another one there: Namespace(client, name)"
)


class Absent:
    """An attribute that redis-py's clients have and a namespace has not: it would go past it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, proxy: Any, owner: type) -> Any:
        if proxy is None:
            return self
        raise AttributeError(absence(proxy, self.name))


class PassedOn:
    """An attribute of the client that a namespace has, too."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, proxy: Any, owner: type) -> Any:
        return self if proxy is None else getattr(proxy.redis, self.name)


def absence(proxy: Any, name: str) -> str:
    """Say that there is no such attribute, why, and where it is."""
    return (
        f"a {type(proxy).__name__} has no {name!r}: what cannot be confined to the namespace is not passed on; "
        "the client underneath is its attribute 'redis'"
    )


def knows(*clients: type) -> Callable[[type[T]], type[T]]:
    """Let a proxy's class say of everything that these clients have, and it has not, whether it passes or is absent."""

    def teach(cls: type[T]) -> type[T]:
        names = {name for client in clients for name in dir(client) if not name.startswith("__")} | REDIS_STATE | PASSED_ON
        for name in names:
            if not hasattr(cls, name):
                setattr(cls, name, PassedOn(name) if name in PASSED_ON else Absent(name))
        return cls

    return teach


@lru_cache(maxsize=256)
def kind_for(cls: Any, client_type: Any) -> Any:
    """Return the class of a proxy over a client of this class: with all that a subclass of redis-py's clients adds or overrides.

    Its functions are bound to the proxy, so what they send goes through it. What the proxy has of its own stays the proxy's, which calls
    the client's.
    """
    own: dict[str, Any] = {}
    for defining in client_type.__mro__:
        if defining.__module__.partition(".")[0] == "redis":
            break
        for name, value in vars(defining).items():
            if not name.startswith("__") and not _is_ours(cls, name):
                own.setdefault(name, value)
    is_redis_own = client_type.__module__.partition(".")[0] == "redis"
    return cls if is_redis_own else type(cls.__name__, (cls,), {**own, "__getattr__": _data_of_subclass, "__module__": cls.__module__})


def _is_ours(cls: type, name: str) -> bool:
    defining = next((parent for parent in cls.__mro__ if name in vars(parent)), None)
    return defining is not None and defining.__module__.startswith("async_tracker.")


def _data_of_subclass(proxy: Any, name: str) -> Any:
    """Find what the constructor of a client's subclass has stored (``ArqRedis.default_queue_name``)."""
    data = vars(vars(proxy)["redis"])
    if name.startswith("_") or name in REDIS_STATE or name not in data:
        raise AttributeError(absence(proxy, name))
    return data[name]


def allowed_for(client_type: type) -> frozenset[str]:
    """Return the refused commands that pass for clients of this class."""
    modules = {cls.__module__.partition(".")[0] for cls in client_type.__mro__}
    return frozenset(name for module in modules for name in ALLOWED_FOR.get(module, ()))


class Proxy:
    """A client seen through a namespace. ``redis`` is the client underneath: the way out, on purpose."""

    redis: Any

    def __new__(cls, client: Any, *args: Any, **options: Any) -> Self:
        underneath = client.redis if issubclass(type(client), Proxy) else client
        kind: Any = cls
        client_type: Any = type(underneath)
        made: Self = object.__new__(kind_for(kind, client_type))
        return made

    def __init__(self, client: Any, rules: Rules) -> None:
        self.redis = client
        self._rules = rules
        self._plans = rules.plans

    @property
    def __class__(self) -> Any:
        # redis-py asks with isinstance whether a client is a pipeline and which protocol it speaks; the answer is the client's.
        return type(self.redis)

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("the class of a namespace cannot be changed")

    def __copy__(self) -> Self:
        """Make another view of the same client, as a copy of a client has the same pool."""
        made: Self = object.__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __deepcopy__(self, memo: Any) -> Self:
        raise TypeError(_NOT_TO_BE_MOVED)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(_NOT_TO_BE_MOVED)

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
