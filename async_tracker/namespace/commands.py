"""redis-py's own methods for the commands, without its clients: all that they need is an ``execute_command``."""

from redis.commands import AsyncCoreCommands, AsyncRedisModuleCommands, CoreCommands, RedisModuleCommands


class AsyncCommands(AsyncRedisModuleCommands, AsyncCoreCommands):
    """Every command as a coroutine."""


class SyncCommands(RedisModuleCommands, CoreCommands):
    """Every command as a function."""
