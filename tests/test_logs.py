"""A line of the log is a line, whatever an id in it holds."""

import logging

import pytest

from async_tracker import Tracker


@pytest.mark.parametrize("odd", ["a\nINFO all is well", "a\x1b[31mb", "a\rb", "a\x00b", "a\u2028b", "\udcff"])
def test_an_id_in_a_log_line_is_escaped(odd: str, caplog):
    Tracker()
    Tracker()
    logging.getLogger("async_tracker").warning("job %s was left by dead instance %s", odd, "web")
    (line,) = caplog.messages
    assert line.isprintable()
    assert line.startswith("job ")
    assert line.endswith(" was left by dead instance web")
    assert len(logging.getLogger("async_tracker").filters) == 1


def test_what_can_be_printed_is_left_as_it_is(caplog):
    Tracker()
    logging.getLogger("async_tracker").warning("job %s", "naïve-ключ 100%")
    assert caplog.messages == ["job naïve-ключ 100%"]
    assert caplog.records[0].args == ("naïve-ключ 100%",)
