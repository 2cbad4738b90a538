"""The check for leaks, and the refusal of a database that is not empty."""

import subprocess
import sys

import pytest
import redis.asyncio

from tests.harness.forking import ROOT
from tests.harness.servers import GivenServer, assert_no_leaks, leaked_keys


async def test_keys_with_a_lifetime_and_keys_of_registered_instances_are_no_leak(redis_client: redis.asyncio.Redis, namespace: str):
    await redis_client.zadd(f"{namespace}:instances", {"host:1:a": 1})
    await redis_client.hset(f"{namespace}:instance:host:1:a", "pid", "1")
    await redis_client.sadd(f"{namespace}:jobs:host:1:a", "42")
    await redis_client.set(f"{namespace}:job:42", "{}")
    await redis_client.set(f"{namespace}:lease", "x", px=60_000)
    await redis_client.set("somebody:else", "x")
    await assert_no_leaks(redis_client, namespace)


async def test_what_nobody_will_delete_is_a_leak(redis_client: redis.asyncio.Redis, namespace: str):
    await redis_client.zadd(f"{namespace}:instances", {"host:1:a": 1})
    await redis_client.hset(f"{namespace}:instance:host:1:gone", "pid", "1")
    await redis_client.sadd(f"{namespace}:jobs:host:1:gone", "42")
    await redis_client.set(f"{namespace}:job:42", "{}")
    await redis_client.set(f"{namespace}:eternal", "x")
    assert await leaked_keys(redis_client, namespace, allowed=["eternal"]) == ["instance:host:1:gone", "job:42", "jobs:host:1:gone"]
    with pytest.raises(AssertionError, match="eternal"):
        await assert_no_leaks(redis_client, namespace)


async def test_a_namespace_is_taken_literally(redis_client: redis.asyncio.Redis):
    await redis_client.set("ab:key", "x")
    assert await leaked_keys(redis_client, "a[b]") == []
    assert await leaked_keys(redis_client, "a*") == []


async def test_a_given_database_that_holds_anything_is_refused(redis_client: redis.asyncio.Redis, redis_url: str):
    GivenServer(url=redis_url).refuse_unless_empty()
    await redis_client.set("somebodys", "data")
    with pytest.raises(RuntimeError, match="1 keys"):
        GivenServer(url=redis_url).refuse_unless_empty()


@pytest.mark.parametrize("other", ["--numprocesses=2", "--server-binary=/bin/true"])
def test_a_given_database_is_refused_to_a_run_that_would_share_it_or_start_a_server_of_its_own(other: str):
    command = [sys.executable, "-m", "pytest", "--redis-url=redis://localhost:1", other, "-p", "no:cacheprovider", __file__]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--redis-url" in refused.stderr
