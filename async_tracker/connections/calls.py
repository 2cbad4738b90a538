"""The one border to redis-py's calls: raw replies, scripts, and exceptions translated into ours.

Whatever the client decodes and whichever encoding its owner gave it: keys and values go out as UTF-8 bytes and replies come
back as bytes.
"""

import asyncio
import hashlib
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

from redis.exceptions import AuthenticationError, ConnectionError, NoScriptError, RedisError, ResponseError, TimeoutError

from async_tracker.connections.locator import is_elsewhere
from async_tracker.connections.replies import Argument, packed
from async_tracker.errors import StorageError, StorageUnavailable, TrackerError

T = TypeVar("T")


RAW = {"NEVER_DECODE": True}
"""The option that makes redis-py hand a reply over as bytes."""


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua file. ``sha`` is what the server knows it by."""

    name: str
    text: str
    sha: str


def load_script(package: str, name: str) -> Script:
    """Read ``lua/{name}.lua`` of a package."""
    source = resources.files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


async def call(client: Any, *command: Argument) -> Any:
    """Run one command on a client or proxy. Raises StorageUnavailable or StorageError."""
    with translated():
        return await client.execute_command(*command[:1], *map(packed, command[1:]), **RAW)


async def call_many(client: Any, commands: Iterable[Sequence[Argument]]) -> list[Any]:
    """Run several commands in one round trip, not as a transaction; a command that the server refuses has its error as reply."""
    with translated():
        async with client.pipeline(transaction=False) as pipe:
            for command in commands:  # thousands of names of keys among their arguments, in bytes already
                pipe.execute_command(command[0], *[part if type(part) is bytes else packed(part) for part in command[1:]], **RAW)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies


async def run_script(client: Any, script: Script, keys: Sequence[str | bytes], arguments: Sequence[Argument]) -> Any:
    """Run a script on a client or proxy.

    A server that has forgotten it (restarted, flushed, failed over) is given it again in the same call.
    Raises StorageUnavailable or StorageError.
    """
    rest = [len(keys), *map(packed, keys), *map(packed, arguments)]
    with translated():
        try:
            return await client.execute_command("EVALSHA", script.sha, *rest, **RAW)
        except NoScriptError:
            return await client.execute_command("EVAL", script.text, *rest, **RAW)


ScriptCall = tuple[Script, Sequence[str | bytes], Sequence[Argument]]
"""A script, its keys and its arguments."""


async def run_scripts(
    client: Any, calls: Sequence[ScriptCall], *, beside: Sequence[Sequence[Argument]] = (), by_text: bool = False
) -> list[Any]:
    """Run scripts one after the other, in one round trip; one that the server refuses has its error as reply.

    The commands ``beside`` them go in the same round trip, and their replies come first.
    What the server has forgotten is run in a second one, after the others; ``by_text`` sends the scripts themselves, and keeps the
    order whatever the server knows.
    """
    commands = [
        ("EVAL" if by_text else "EVALSHA", script.text if by_text else script.sha, len(keys), *keys, *arguments)
        for script, keys, arguments in calls
    ]
    replies = await call_many(client, [*beside, *commands]) if beside or commands else []
    forgotten = [at for at in range(len(commands)) if isinstance(replies[len(beside) + at], NoScriptError)]
    if forgotten:
        again = await call_many(client, [("EVAL", calls[at][0].text, *commands[at][2:]) for at in forgotten])
        for at, reply in zip(forgotten, again, strict=True):
            replies[len(beside) + at] = reply
    return replies


def raised(replies: list[Any]) -> list[Any]:
    """Give these replies if there is no error among them; raises the first as `run_script` does."""
    with translated():
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
    return replies


def refusal(reply: Any) -> StorageError | None:
    """Give the refusal that one reply of `run_scripts` is, as our own exception; None for an answer. Raises StorageUnavailable."""
    try:
        raised([reply])
    except StorageUnavailable:
        raise
    except StorageError as exc:
        return exc
    return None


def run_script_sync(client: Any, script: Script, keys: Sequence[str | bytes], arguments: Sequence[Argument]) -> Any:
    """Run a script on a synchronous client or proxy, as `run_script` does; for threads."""
    rest = [len(keys), *map(packed, keys), *map(packed, arguments)]
    with translated():
        try:
            return client.execute_command("EVALSHA", script.sha, *rest, **RAW)
        except NoScriptError:
            return client.execute_command("EVAL", script.text, *rest, **RAW)


def let_be_left(task: asyncio.Task[Any]) -> None:
    """Let a task be left behind with its loop, and nothing be logged of it: a worker may leave its loop without a word (SystemExit)."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]


async def bounded(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Let the driver work in a task of its own, for at most ``seconds``. Raises Python's TimeoutError when they are over.

    A caller that is cancelled in here is cancelled at once. The driver itself can swallow a cancellation: on Python 3.11 ``wait_for``,
    in which it sends, does when both come together.
    """
    task = asyncio.get_running_loop().create_task(work)
    let_be_left(task)
    task.add_done_callback(_note_exception)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(seconds, 0.0))
        if not done:
            raise asyncio.TimeoutError  # Python's, not the driver's, which has the same name here
        return task.result()
    finally:
        task.cancel()


def _note_exception(task: "asyncio.Task[Any]") -> None:
    """Fetch a failure, so that asyncio does not report it as never retrieved: the caller may have left before it."""
    if not task.cancelled():
        task.exception()


@contextmanager
def translated() -> Iterator[None]:
    """Translate the driver's exceptions into ours, with the cause attached."""
    try:
        yield
    except TrackerError:
        raise
    except (ConnectionError, TimeoutError, OSError, asyncio.TimeoutError) as exc:
        _hide_arguments(exc)
        if isinstance(exc, AuthenticationError):
            raise StorageError(f"Redis refuses the tracker's user: {exc}") from exc
        raise StorageUnavailable(f"Redis cannot be reached: {exc or type(exc).__name__}") from exc
    except RedisError as exc:
        _hide_arguments(exc)
        raise StorageError(f"Redis refuses: {exc}") from exc


def _hide_arguments(exc: Exception) -> None:
    """Take the arguments out of a server's complaint of a command that it does not know: with HELLO and AUTH they are the password.

    >>> exc = ResponseError("unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `secret`, ")
    >>> _hide_arguments(exc); str(exc)
    'unknown command `HELLO`'
    """
    said = str(exc)
    at = said.find(", with args beginning with")
    if at >= 0:
        exc.args = (said[:at],)


def refused(reply: Any) -> bool:
    """Tell whether a reply of `call_many` is the server's refusal. That another server is to be asked is none: it is raised by `raised`."""
    return isinstance(reply, ResponseError) and not is_elsewhere(reply)


def leads_elsewhere(exc: StorageError) -> bool:
    """Tell whether another server is to be asked, as where a primary was demoted or a slot moved; nothing was done then."""
    return is_elsewhere(exc.__cause__)


def is_of_wrong_type(exc: BaseException) -> bool:
    """Tell whether a command was refused because a key is of another type, so that it hit this key and says nothing of others."""
    return isinstance(exc, StorageError) and refused_by_type(exc.__cause__)


def refused_by_type(reply: Any) -> bool:
    """Tell whether a reply of `call_many` is the server's refusal because a key is of another type."""
    return isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply)
