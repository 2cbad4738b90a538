"""What a namespace may be: the same for the proxy and for the tracker."""

import pytest
import redis
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from async_tracker import ConfigError, Tracker
from async_tracker.namespace import Namespace, SyncNamespace


def refusal(make, *arguments, **named) -> str:
    try:
        make(*arguments, **named)
    except ConfigError as exc:
        return str(exc)
    return ""


def refusals(namespace) -> set[str]:
    """What each of the three says of a namespace; '' where it is taken."""
    proxies = (Namespace, redis.asyncio.Redis()), (SyncNamespace, redis.Redis())
    return {refusal(proxy, client, namespace) for proxy, client in proxies} | {refusal(Tracker, namespace=namespace)}


@pytest.mark.parametrize("namespace", ["", "a\nb", "a\x85b", "a\x7fb", "\udcff", "a\ud800", None, b"app", 7], ids=ascii)
def test_what_cannot_be_a_namespace_is_refused_everywhere_with_what_to_write(namespace):
    (said,) = refusals(namespace)
    assert repr(namespace) in said
    assert said.endswith('write namespace="my_app"')


@pytest.mark.parametrize("namespace", ["my_app", "naïve: {x}*", "日本"])
def test_what_can_be_one_is_taken_everywhere(namespace):
    assert refusals(namespace) == {""}


@given(st.one_of(st.text(max_size=5), st.text(st.characters(categories=["Cc", "Cs", "Cf", "Zl"]), max_size=3)))
def test_the_proxies_and_the_tracker_agree_on_every_namespace(namespace):
    assert len(refusals(namespace)) == 1


def test_a_namespace_that_the_client_cannot_write_is_refused_with_what_to_write():
    client = redis.Redis(encoding="latin-1")
    assert SyncNamespace(client, "naïve").full_key("k") == "naïve:k".encode("latin-1")
    assert "write a namespace in plain ASCII" in refusal(SyncNamespace, client, "日本")
