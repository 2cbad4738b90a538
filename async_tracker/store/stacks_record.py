"""What was seen of the threads and jobs of an instance, as JSON of a bounded length: pure."""

import dataclasses
import json
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

from async_tracker.errors import CorruptRecord
from async_tracker.records import Chain, Stacks, ThreadStack, WaitingJobs, jsonable

STACKS_BYTES = 256_000
"""What an answer may be long: it passes through Redis, and is kept there for a while."""
_FOR_THREADS = 4
"""A quarter of it at most is for threads."""
_HEAD_BYTES = 1_000
"""What stands around the lists."""
_GROUP_BYTES = 60
"""What stands around the chain and the ids of a group."""


def encode_stacks(stacks: Stacks, *, limit: int = STACKS_BYTES) -> str:
    """Write them in at most ``limit`` bytes; what does not fit is left out, and ``cut`` says so."""
    steps = encoding(stacks, limit=limit)
    while True:
        try:
            next(steps)
        except StopIteration as over:
            return str(over.value)


def encoding(stacks: Stacks, *, limit: int = STACKS_BYTES) -> Generator[None, None, str]:
    """Do what `encode_stacks` does, with a pause after each step: an event loop can go on meanwhile.

    First come the threads, then the chains of the largest groups, then ids for which there is room.
    """
    left = limit - _HEAD_BYTES
    threads, for_threads = [], left // _FOR_THREADS
    for thread in stacks.threads:
        text = _dumped(thread)
        for_threads -= len(text) + 1
        if for_threads < 0:
            break
        threads.append(text)
        left -= len(text) + 1
        yield
    chains, is_shortened = [], False
    for group in stacks.jobs:
        text = _dumped(group.chain)
        if len(text) > left // 2 and group.chain.branches:
            text, is_shortened = _dumped(_without_branches(group.chain)), True
        length = len(text) + len(_dumped(group.function)) + _GROUP_BYTES
        if length > left:
            break
        chains.append(text)
        left -= length
        yield
    jobs, shown = [], 0
    for group, chain in zip(stacks.jobs, chains, strict=False):
        ids = list(group.job_ids)
        while len(text := _dumped(ids)) > max(left, 2):
            ids = ids[: int(len(ids) * 0.9 * max(left, 0) / len(text))]
        left -= len(text) - 2
        shown += len(ids)
        jobs.append(f'{{"count":{group.count},"job_ids":{text},"function":{_dumped(group.function)},"chain":{chain}}}')
        yield
    cut = _cut(stacks, limit=limit, threads=len(threads), groups=len(jobs), ids=shown, is_shortened=is_shortened)
    head = _dumped(dataclasses.replace(stacks, threads=(), jobs=(), cut=cut)).replace('"threads":[],"jobs":[]', "%s", 1)
    before, _, after = head.partition("%s")
    return f'{before}"threads":[{",".join(threads)}],"jobs":[{",".join(jobs)}]{after}'


def _dumped(value: Any) -> str:
    return json.dumps(jsonable(value), separators=(",", ":"))


def _without_branches(chain: Chain) -> Chain:
    return dataclasses.replace(chain, branches=(), left_out=chain.left_out + sum(branch.times for branch in chain.branches))


def _cut(stacks: Stacks, *, limit: int, threads: int, groups: int, ids: int, is_shortened: bool) -> str:
    parts = []
    if threads < len(stacks.threads):
        parts.append(f"{len(stacks.threads) - threads} of {len(stacks.threads)} threads")
    rest = sum(group.count for group in stacks.jobs[groups:])
    if rest:
        parts.append(f"{rest} jobs that wait elsewhere")
    there = sum(group.count for group in stacks.jobs[:groups])
    if ids < there:
        parts.append(f"{there - ids} ids of jobs")
    if is_shortened:
        parts.append("what long chains branch into")
    return f"left out, to stay under {limit // 1000} kB: {', '.join(parts)}. Ask for one job to see it whole" if parts else ""


def read_stacks(key: str, stored: Any) -> Stacks:
    """Read the JSON of what `encode_stacks` wrote. Raises CorruptRecord for anything else."""
    try:
        return Stacks(
            instance_id=_text(stored["instance_id"]),
            taken_at=datetime.fromisoformat(stored["taken_at"]),
            took=float(stored["took"]),
            is_blocked=bool(stored["is_blocked"]),
            threads=tuple(ThreadStack(name=_text(item["name"]), frames=_texts(item["frames"])) for item in stored["threads"]),
            jobs=tuple(
                WaitingJobs(
                    count=int(item["count"]),
                    job_ids=_texts(item["job_ids"]),
                    function=None if item["function"] is None else _text(item["function"]),
                    chain=read_chain(item["chain"]),
                )
                for item in stored["jobs"]
            ),
            cut=_text(stored.get("cut", "")),
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise CorruptRecord(key, f"no stacks that this version can read: {exc}") from exc


def read_chain(stored: Mapping[str, Any]) -> Chain:
    """Read the JSON of a chain. Raises KeyError, ValueError or TypeError for anything else."""
    return Chain(
        frames=_texts(stored["frames"]),
        ends=_text(stored["ends"]),
        thread=None if stored["thread"] is None else _text(stored["thread"]),
        branches=tuple(map(read_chain, stored["branches"])),
        times=int(stored["times"]),
        left_out=int(stored["left_out"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r:.40} is no list")
    return tuple(map(_text, values))
