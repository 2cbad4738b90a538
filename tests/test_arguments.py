"""What a method refuses to be given: at once, by name, with what to write instead."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_tracker import arguments
from async_tracker.errors import ConfigError

values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text() | st.integers())

CHECKS = [
    arguments.check_argument_texts,
    arguments.check_argument_names,
    arguments.check_argument_seconds,
    arguments.check_argument_truth,
    partial(arguments.check_argument_whole, least=1),
]


def refusal(check: Callable[..., None], value: Any) -> str | None:
    """Give what is said against a value, by an error that is a ConfigError and a TypeError; None where nothing is."""
    try:
        check("quiet", cron=value)
    except ConfigError as exc:
        return str(exc) if isinstance(exc, TypeError) else ""
    return None


@given(values)
@pytest.mark.parametrize("check", CHECKS)
def test_a_value_passes_or_is_refused_by_the_names_of_method_and_argument(check: Callable[..., None], value: Any):
    said = refusal(check, value)
    assert said is None or "quiet(cron" in said


@given(st.integers())
def test_a_whole_number_is_one_from_the_least_on(value: int):
    if 1 <= value <= 2**31:
        arguments.check_argument_whole("jobs", least=1, limit=value)
    else:
        with pytest.raises(ConfigError, match="a whole one, 1 or more"):
            arguments.check_argument_whole("jobs", least=1, limit=value)


def test_text_that_cannot_be_written_is_refused_also_within_a_list():
    with pytest.raises(ConfigError, match=r"^register\(functions="):
        arguments.check_argument_names("register", functions=["send", "\ud800"])
