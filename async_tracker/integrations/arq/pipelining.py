"""What arq asks before it claims a job, in one message instead of three.

arq watches the claim's key, asks whether it exists, then asks for the job's score, and waits for each answer; a worker claims one
job after the other. Here the three commands are sent together, and two answers wait until arq asks. Redis sees the same commands in
the same order on the same connection, and nothing is older when it counts: the score is followed by MULTI, one message later, as it
is without us, and EXEC does nothing if the claim's key was touched since WATCH.

Which queue to ask is not known but seen: it is that of the claim before. The first claim therefore goes step by step, and so does
one after something went wrong, or after arq asked for something else than it did before.
"""

from types import FunctionType
from typing import Any

from async_tracker.calls import refused
from async_tracker.integrations.arq.names import IN_PROGRESS

_OF_REDIS_PY = {
    "exists": "redis.commands.core",
    "zscore": "redis.commands.core",
    "watch": "redis.asyncio.client",
    "execute_command": "redis.asyncio.client",
    "immediate_execute_command": "redis.asyncio.client",
    "parse_response": "redis.asyncio.client",
    "_send_command_parse_response": "redis.asyncio.client",
}
"""Where the methods are from that a command passes between arq and the connection, in redis-py 5.0 to 8."""


def pipelining(kind: Any) -> dict[str, Any]:
    """Give the methods that a class of pipelines needs for it; none where commands pass anything that is not redis-py's own."""
    if not _is_of_redis_py(kind):
        return {}
    plain_send, plain_exists, plain_zscore = kind._send_command_parse_response, kind.exists, kind.zscore
    queue: Any = None  # whose scores arq asks for; None from a question that was sent ahead until arq asks it

    async def _send_command_parse_response(self: Any, conn: Any, command_name: Any, *args: Any, **options: Any) -> Any:
        nonlocal queue
        self._answers = {}  # whatever is sent may change them
        if command_name != "WATCH":
            return await plain_send(self, conn, command_name, *args, **options)
        key, self._claimed_id = args[-1], None
        if type(key) is not str or not key.startswith(IN_PROGRESS):
            return await plain_send(self, conn, command_name, *args, **options)
        self._claimed_id = job_id = key.removeprefix(IN_PROGRESS)
        asked, queue = queue, None
        if asked is None:
            return await plain_send(self, conn, command_name, *args, **options)
        questions = (args, ("EXISTS", key), ("ZSCORE", asked, job_id))
        await conn.send_packed_command(conn.pack_commands(questions))
        watched, *answers = [await _answer(self, conn, question[0]) for question in questions]
        self._answers = dict(zip(questions[1:], answers, strict=True))
        return await _given(watched)

    def exists(self: Any, *names: Any) -> Any:
        answer = _answer_to(self, "EXISTS", *names)
        return plain_exists(self, *names) if answer is None else answer

    def zscore(self: Any, name: Any, value: Any) -> Any:
        nonlocal queue
        if type(name) is str and value == self._claimed_id:
            queue = name
        answer = _answer_to(self, "ZSCORE", name, value)
        return plain_zscore(self, name, value) if answer is None else answer

    return {
        "_send_command_parse_response": _send_command_parse_response,
        "exists": exists,
        "zscore": zscore,
        "_answers": {},
        "_claimed_id": None,
    }


def _is_of_redis_py(kind: Any) -> bool:
    methods = {name: getattr(kind, name, None) for name in _OF_REDIS_PY}
    return all(isinstance(method, FunctionType) and method.__module__ == _OF_REDIS_PY[name] for name, method in methods.items())


def _is_asked_at_once(pipe: Any) -> bool:
    """Whether a question is answered when it is put, as between WATCH and MULTI, rather than when the transaction is executed."""
    return bool(pipe.watching and not pipe.explicit_transaction)


def _answer_to(pipe: Any, *question: Any) -> Any:
    """Give what awaits the answer that is there already, once; None where there is none."""
    if not pipe._answers or not _is_asked_at_once(pipe) or not all(type(part) is str for part in question):
        return None
    return _given(pipe._answers.pop(question)) if question in pipe._answers else None


async def _answer(pipe: Any, conn: Any, command_name: str) -> Any:
    """Read one reply; a refusal is an answer too, for whoever asks. After any other failure the connection is out of step."""
    try:
        return await pipe.parse_response(conn, command_name)
    except BaseException as exc:
        if refused(exc):
            return exc
        await conn.disconnect(nowait=True)
        raise


async def _given(answer: Any) -> Any:
    if refused(answer):
        raise answer
    return answer
