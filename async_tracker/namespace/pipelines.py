"""Pipelines and transactions in a namespace, for asyncio and for synchronous code."""

from collections.abc import Awaitable, Generator, Sequence
from typing import Any, Self

from async_tracker.namespace.commands import AsyncCommands, SyncCommands
from async_tracker.namespace.proxy import Proxy
from async_tracker.namespace.rules import Rules, StripReply

Written = list[tuple[tuple[Any, ...], StripReply | None]]


async def stripped(reply: Awaitable[Any], strip: StripReply) -> Any:
    """Await a reply and take the namespace off the names in it."""
    return strip(await reply)


def strip_replies(replies: Sequence[Any], written: Written) -> list[Any]:
    """Take the namespace off each reply that carries names; errors stay as they are."""
    if all(strip is None for _, strip in written):
        return list(replies)
    return [
        reply if strip is None or isinstance(reply, Exception) else strip(reply) for reply, (_, strip) in zip(replies, written, strict=True)
    ]


class PipelineProxy(Proxy):
    """What the two kinds of pipelines share: the commands that wait, as the user wrote them, beside the client's own stack."""

    def __init__(self, pipeline: Any, rules: Rules) -> None:
        super().__init__(pipeline, rules)
        self._written: Written = []
        self._executing: Written = []
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
            command = self._executing[number - 1][0]
        type(self.redis).annotate_exception(self.redis, exception, number, command)

    def _begin(self) -> Written:
        self._executing, self._written = self._written, []
        return self._executing

    def __len__(self) -> int:
        return len(self.redis)

    def __bool__(self) -> bool:
        return True


class NamespacePipeline(PipelineProxy, AsyncCommands):
    """A pipeline of redis.asyncio in a namespace. Commands are refused when they are queued, not when they are executed."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command, or send it at once while keys are watched."""
        rewritten, strip = self._rules.prepare(args)
        result = self.redis.execute_command(*rewritten, **options)
        if result is self.redis:
            self._written.append((args, strip))
            return self
        return result if strip is None else stripped(result, strip)

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Self:
        """Queue a command."""
        rewritten, strip = self._rules.prepare(args)
        self.redis.pipeline_execute_command(*rewritten, **options)
        self._written.append((args, strip))
        return self

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command at once, on the pipeline's connection."""
        rewritten, strip = self._rules.prepare(args)
        reply = await self.redis.immediate_execute_command(*rewritten, **options)
        return reply if strip is None else strip(reply)

    async def execute(self, raise_on_error: bool = True, **options: Any) -> list[Any]:
        """Send all that was queued; return the replies, in order."""
        written = self._begin()
        replies = await self.redis.execute(raise_on_error, **options)
        return strip_replies(replies, written) if replies else replies

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
        self._written = []
        await self.redis.reset()

    async def aclose(self) -> None:
        """The same as ``reset``."""
        await self.reset()

    async def __aenter__(self) -> Self:
        await self.redis.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._written = []
        await self.redis.__aexit__(*exc_info)

    async def _itself(self) -> Self:
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._itself().__await__()


class SyncNamespacePipeline(PipelineProxy, SyncCommands):
    """A pipeline of redis in a namespace."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command, or send it at once while keys are watched."""
        rewritten, strip = self._rules.prepare(args)
        result = self.redis.execute_command(*rewritten, **options)
        if result is self.redis:
            self._written.append((args, strip))
            return self
        return result if strip is None else strip(result)

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Self:
        """Queue a command."""
        rewritten, strip = self._rules.prepare(args)
        self.redis.pipeline_execute_command(*rewritten, **options)
        self._written.append((args, strip))
        return self

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command at once, on the pipeline's connection."""
        rewritten, strip = self._rules.prepare(args)
        reply = self.redis.immediate_execute_command(*rewritten, **options)
        return reply if strip is None else strip(reply)

    def execute(self, raise_on_error: bool = True, **options: Any) -> list[Any]:
        """Send all that was queued; return the replies, in order."""
        written = self._begin()
        replies = self.redis.execute(raise_on_error, **options)
        return strip_replies(replies, written) if replies else replies

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
        self._written = []
        self.redis.reset()

    def close(self) -> None:
        """The same as ``reset``."""
        self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._written = []
        self.redis.__exit__(*exc_info)
