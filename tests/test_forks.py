"""A forked child lets go of what is its parent's."""

import gc
import os

import pytest

from async_tracker.forks import on_fork


class Inherited:
    """Writes a byte when it is told to let go, and may fail then."""

    def __init__(self, number: int, *, fails: bool = False) -> None:
        self.number = number
        self.fails = fails

    def forget_in_child(self) -> None:
        os.write(self.number, b"1")
        if self.fails:
            raise ValueError("told to")


def told_in_a_child(reading: int) -> int:
    """Fork, and count the objects that are told."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    try:
        return len(os.read(reading, 100))
    except BlockingIOError:
        return 0


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_one_that_fails_keeps_no_other_from_being_told(pipe):
    reading, writing = pipe
    inherited = [Inherited(writing, fails=number == 1) for number in range(3)]
    for each in inherited:
        on_fork(each)
    assert told_in_a_child(reading) == len(inherited)


def test_only_what_still_lives_is_told(pipe):
    reading, writing = pipe
    kept, dropped = Inherited(writing), Inherited(writing)
    on_fork(kept)
    on_fork(dropped)
    del dropped
    gc.collect()
    assert told_in_a_child(reading) == 1
