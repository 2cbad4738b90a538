"""The server itself says that every command is prefixed right: COMMAND GETKEYS, ACL DRYRUN, and that nothing else was changed."""

from collections.abc import Sequence
from typing import Any

from async_tracker.namespace.naming import Naming
from async_tracker.namespace.rules import CONTAINERS, Rules, refusal_of
from tests.namespace.forms import Form
from tests.namespace.oracle import NAMESPACE, Oracle


def rewrite(form: Sequence[Any]) -> Sequence[Any]:
    return Rules(Naming(NAMESPACE, str.encode)).prepare(tuple(form))[0]


def test_every_form_of_every_command_has_exactly_its_keys_prefixed(oracle: Oracle, forms: tuple[Form, ...]):
    verdict = oracle.judge(forms, rewrite)

    assert not verdict.wrong


def test_every_command_with_keys_is_proven_or_refused(oracle: Oracle, forms: tuple[Form, ...]):
    proven = oracle.judge(forms, rewrite).proven

    proven_containers = {name.partition(" ")[0] for name in proven}
    assert {name for name in oracle.keyed_commands - proven - proven_containers if refusal_of(name) is None} == set()
    assert len(proven) > 120


def test_every_command_of_the_server_is_known(oracle: Oracle):
    assert [name for name in oracle.commands if name not in CONTAINERS and "in no table" in (refusal_of(name) or "")] == []
