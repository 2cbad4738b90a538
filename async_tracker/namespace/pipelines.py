"""Pipelines and transactions in a namespace, for asyncio and for synchronous code."""

from collections.abc import Awaitable, Generator
from typing import Any, Self

from redis.asyncio.client import Pipeline as AsyncPipeline
from redis.client import Pipeline

from async_tracker.namespace.commands import AsyncQueuedCommands, SyncQueuedCommands
from async_tracker.namespace.proxy import Proxy, knows
from async_tracker.namespace.rules import Rules, StripReply

Strips = dict[int, StripReply]

STOCK = frozenset(
    [AsyncPipeline.execute_command, AsyncPipeline.pipeline_execute_command, Pipeline.execute_command, Pipeline.pipeline_execute_command]
)
"""redis-py's own: while nothing is watched, all that they do is to put the command on the stack. So the proxy does it, two calls less."""


def only_queues(pipeline: Any) -> bool:
    """Tell whether a pipeline queues commands as redis-py's own do, so that no caller misses a call that is not made."""
    return all(
        getattr(type(pipeline), name, None) in STOCK and name not in vars(pipeline)
        for name in ("execute_command", "pipeline_execute_command")
    )


async def stripped(reply: Awaitable[Any], strip: StripReply) -> Any:
    """Await a reply and take the namespace off the names in it."""
    return strip(await reply)


def strip_replies(replies: list[Any], strips: Strips) -> list[Any]:
    """Take the namespace off the replies that carry names, given by their places; errors stay as they are."""
    for at, strip in strips.items():
        if not isinstance(replies[at], Exception):
            replies[at] = strip(replies[at])
    return replies


class PipelineProxy(Proxy):
    """What the two kinds of pipelines share: the commands that wait, as the user wrote them, beside the client's own stack."""

    def __init__(self, pipeline: Any, rules: Rules) -> None:
        super().__init__(pipeline, rules)
        self._written: list[tuple[Any, ...]] = []
        self._strips: Strips = {}
        self._executing: list[tuple[Any, ...]] = []
        self._only_queues = only_queues(pipeline)
        if hasattr(pipeline, "annotate_exception") and hasattr(pipeline, "__dict__"):
            pipeline.annotate_exception = self._annotate_exception

    @property
    def command_stack(self) -> Any:
        """The commands that wait, as they will be sent."""
        return self.redis.command_stack

    @property
    def scripts(self) -> Any:
        """The scripts that must be known to the server before the pipeline is executed."""
        return self.redis.scripts

    @property
    def watching(self) -> bool:
        """Whether keys are watched: commands are then sent at once, until ``multi``."""
        return bool(self.redis.watching)

    @property
    def explicit_transaction(self) -> bool:
        """Whether ``multi`` was called after a ``watch``."""
        return bool(self.redis.explicit_transaction)

    def multi(self) -> None:
        """Begin to gather commands again after ``watch``."""
        self.redis.multi()

    def _annotate_exception(self, exception: Exception, number: int, command: Any) -> None:
        """Name a failed command as the user wrote it."""
        if 0 < number <= len(self._executing):
            command = self._executing[number - 1]
        type(self.redis).annotate_exception(self.redis, exception, number, command)

    def _queued(self, args: tuple[Any, ...], strip: StripReply | None) -> Self:
        if strip is not None:
            self._strips[len(self._written)] = strip
        self._written.append(args)
        return self

    def _begin(self) -> Strips:
        strips, self._executing = self._strips, self._written
        self._forget()
        return strips

    def _forget(self) -> None:
        self._written, self._strips = [], {}

    def __len__(self) -> int:
        return len(self.redis)

    def __bool__(self) -> bool:
        return True


@knows(AsyncPipeline)
class NamespacePipeline(PipelineProxy, AsyncQueuedCommands):
    """A pipeline of redis.asyncio in a namespace. Commands are refused when they are queued, not when they are executed."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command, or send it at once while keys are watched."""
        rewrite, strip = self._plans[args[0]]
        if rewrite is None:
            rewrite, strip = strip(args)
        pipeline = self.redis
        if self._only_queues and not pipeline.watching and args[0] != "WATCH":
            pipeline.command_stack.append((rewrite(args), options))
        else:
            result = pipeline.execute_command(*rewrite(args), **options)
            if result is not pipeline:
                return result if strip is None else stripped(result, strip)
        if strip is not None:
            self._strips[len(self._written)] = strip
        self._written.append(args)
        return self

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Self:
        """Queue a command."""
        rewritten, strip = self._rules.prepare(args)
        self.redis.pipeline_execute_command(*rewritten, **options)
        return self._queued(args, strip)

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command at once, on the pipeline's connection."""
        rewritten, strip = self._rules.prepare(args)
        reply = await self.redis.immediate_execute_command(*rewritten, **options)
        return reply if strip is None else strip(reply)

    async def execute(self, raise_on_error: bool = True, **options: Any) -> list[Any]:
        """Send all that was queued; return the replies, in order."""
        strips = self._begin()
        replies = await self.redis.execute(raise_on_error, **options)
        return strip_replies(replies, strips)

    async def watch(self, *names: Any) -> Any:
        """Let ``execute`` raise WatchError if one of these keys changes before it."""
        return await self.redis.watch(*map(self._rules.names.add, names))

    async def unwatch(self) -> Any:
        """Forget what is watched."""
        return await self.redis.unwatch()

    async def discard(self) -> None:
        """Drop what was queued."""
        await self.redis.discard()

    async def reset(self) -> None:
        """Forget all that was queued and watched, and give the connection back."""
        self._forget()
        await self.redis.reset()

    async def aclose(self) -> None:
        """The same as ``reset``."""
        await self.reset()

    async def __aenter__(self) -> Self:
        await self.redis.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._forget()
        await self.redis.__aexit__(*exc_info)

    async def _itself(self) -> Self:
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._itself().__await__()


@knows(Pipeline)
class SyncNamespacePipeline(PipelineProxy, SyncQueuedCommands):
    """A pipeline of redis in a namespace."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command, or send it at once while keys are watched."""
        rewrite, strip = self._plans[args[0]]
        if rewrite is None:
            rewrite, strip = strip(args)
        pipeline = self.redis
        if self._only_queues and not pipeline.watching and args[0] != "WATCH":
            pipeline.command_stack.append((rewrite(args), options))
        else:
            result = pipeline.execute_command(*rewrite(args), **options)
            if result is not pipeline:
                return result if strip is None else strip(result)
        if strip is not None:
            self._strips[len(self._written)] = strip
        self._written.append(args)
        return self

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Self:
        """Queue a command."""
        rewritten, strip = self._rules.prepare(args)
        self.redis.pipeline_execute_command(*rewritten, **options)
        return self._queued(args, strip)

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command at once, on the pipeline's connection."""
        rewritten, strip = self._rules.prepare(args)
        reply = self.redis.immediate_execute_command(*rewritten, **options)
        return reply if strip is None else strip(reply)

    def execute(self, raise_on_error: bool = True, **options: Any) -> list[Any]:
        """Send all that was queued; return the replies, in order."""
        strips = self._begin()
        replies = self.redis.execute(raise_on_error, **options)
        return strip_replies(replies, strips)

    def watch(self, *names: Any) -> Any:
        """Let ``execute`` raise WatchError if one of these keys changes before it."""
        return self.redis.watch(*map(self._rules.names.add, names))

    def unwatch(self) -> Any:
        """Forget what is watched."""
        return self.redis.unwatch()

    def discard(self) -> None:
        """Drop what was queued."""
        self.redis.discard()

    def reset(self) -> None:
        """Forget all that was queued and watched, and give the connection back."""
        self._forget()
        self.redis.reset()

    def close(self) -> None:
        """The same as ``reset``."""
        self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._forget()
        self.redis.__exit__(*exc_info)
