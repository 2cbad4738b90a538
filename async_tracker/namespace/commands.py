"""redis-py's own methods for the commands, without its clients: all that they need is an ``execute_command``."""

from redis.commands import AsyncCoreCommands, AsyncRedisModuleCommands, CoreCommands, RedisModuleCommands


class AsyncCommands(AsyncRedisModuleCommands, AsyncCoreCommands):
    """Every command as a coroutine."""


class SyncCommands(RedisModuleCommands, CoreCommands):
    """Every command as a function."""


class AsyncQueuedCommands(AsyncCommands):
    """Every command as a pipeline of asyncio queues it: it returns the pipeline, or, while keys are watched, something to await."""


class SyncQueuedCommands(SyncCommands):
    """Every command as a pipeline queues it: it returns the pipeline, or, while keys are watched, the reply."""
