"""Rules that are wrong are caught: the oracle is not blind where a prefixing proxy goes wrong."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace.naming import Naming
from async_tracker.namespace.shapes import Rewrite, rewrite_for
from tests.namespace.forms import Form
from tests.namespace.oracle import NAMESPACE, PREFIX, Oracle, command_name
from tests.namespace.test_oracle import rewrite

NAMES = Naming(NAMESPACE, str.encode)
OTHER_SHAPES = ("1", "2", "1:", "1:3", "1:-1", "1::2", "#1", "#2", "1 #2", "-")


def identity(form: Sequence[Any]) -> Sequence[Any]:
    return form


def first_key_only(form: Sequence[Any]) -> Sequence[Any]:
    new = list(form)
    for at, (old, right) in enumerate(zip(form, rewrite(form), strict=False)):
        if old != right:
            new[at] = right
            break
    return new


def everything(form: Sequence[Any]) -> Sequence[Any]:
    words = len(command_name(tuple(form)).split())
    return [*form[:words], *(PREFIX + argument for argument in form[words:])]


def twice(form: Sequence[Any]) -> Sequence[Any]:
    return rewrite(rewrite(form))


def values_too(form: Sequence[Any]) -> Sequence[Any]:
    return [PREFIX + "v" if argument == "v" else argument for argument in rewrite(form)]


@pytest.mark.parametrize(
    ("mutant", "commands_left_at_most"),
    [(identity, 0), (twice, 0), (first_key_only, 0.85), (everything, 0.5), (values_too, 0.75)],
)
def test_wrong_rules_lose_their_proof(
    oracle: Oracle, forms: tuple[Form, ...], mutant: Callable[[Sequence[Any]], Sequence[Any]], commands_left_at_most: float
):
    right = oracle.judge(forms, rewrite).proven

    left = oracle.judge(forms, mutant).proven

    assert len(left) <= commands_left_at_most * len(right)


def test_every_command_with_more_than_one_key_is_lost_when_only_the_first_is_prefixed(oracle: Oracle, forms: tuple[Form, ...]):
    several = {command_name(form) for form in oracle.keyed_forms(forms) if list(first_key_only(form)) != list(rewrite(form))}

    assert len(several) > 40
    assert oracle.judge(forms, first_key_only).proven & several == set()


@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_a_command_whose_shape_is_swapped_for_another_is_caught(oracle: Oracle, forms: tuple[Form, ...], shape: str):
    wrong = rewrite_for(shape, NAMES)
    differing = {command_name(form) for form in oracle.keyed_forms(forms) if written(wrong, form) != list(rewrite(form))}

    assert len(differing) > 40
    assert oracle.judge(forms, lambda form: wrong(tuple(form))).proven & differing == set()


def written(wrong: Rewrite, form: Form) -> list[Any]:
    try:
        return list(wrong(form))
    except UnsupportedCommand:
        return []
