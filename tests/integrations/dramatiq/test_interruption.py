"""What an abort may hit: the function of its own message, while it runs, and nothing else."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from dramatiq import Message
from dramatiq.broker import MessageProxy

from async_tracker.integrations.dramatiq.interruption import Aborted, Bracket

ABORTS = 10_000


def new_message() -> MessageProxy:
    return MessageProxy(Message(queue_name="default", actor_name="work", args=(), kwargs={}, options={}))


@pytest.fixture
def swift_switches() -> Iterator[None]:
    """Threads take turns a thousand times as often as by default: what happens between two instructions is then seen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


class Line:
    """A worker's thread: one message after the other, of which every second one is aborted at about the moment of its end."""

    def __init__(self) -> None:
        self.dice = random.Random(22)
        self.steps = 100.0
        """How long functions are that are aborted: longer after an abort that came too late, shorter after one that did not."""
        self.bracket: Bracket | None = None
        """Of the message in hand."""
        self.go, self.was_sent = threading.Semaphore(0), threading.Semaphore(0)
        self.results: dict[str, int] = {}
        self.wrong: list[str] = []
        self.is_over = False
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            for _ in range(ABORTS):
                self._process(is_meant=True)
                self._process(is_meant=False)
                self.was_sent.acquire()
        except BaseException as exc:
            self.wrong.append(f"the thread ended with {exc!r}")
        self.is_over = True
        self.go.release()

    def _process(self, *, is_meant: bool) -> None:
        bracket = Bracket(new_message())
        if is_meant:
            self.bracket = bracket
        try:
            try:
                result = bracket.call(self._work, is_meant=is_meant)
            except Aborted:
                result = "aborted"
            between = sum(range(50))  # what dramatiq does between two functions: nothing may come here
        except BaseException as exc:
            self.wrong.append(f"between two messages came {exc!r}")
            return
        if not is_meant and (result, between) != ("done", 1225):
            self.wrong.append(f"a message that was not meant was {result}")
        if is_meant:
            self.steps = max(self.steps * (0.9 if bracket.is_asked else 1.1), 10.0)
        kind = f"{result}, {'interrupted' if bracket.is_asked else 'not interrupted'}"
        self.results[kind] = self.results.get(kind, 0) + 1

    def _work(self, *, is_meant: bool) -> str:
        if is_meant:
            self.go.release()
            for _ in range(int(self.steps * self.dice.uniform(0.5, 1.5))):
                pass
        return "done"


def test_of_ten_thousand_aborts_at_the_moment_of_the_end_none_hits_another_message_or_the_thread(swift_switches: None):
    """The other thread is told when a function runs, and functions are as long as it takes to abort them: half of them end before."""
    line = Line()
    line.thread.start()
    sent = refused = 0
    while True:
        line.go.acquire()
        if line.is_over:
            break
        assert line.bracket is not None
        if line.bracket.interrupt():
            sent += 1
        else:
            refused += 1
        line.was_sent.release()
    line.thread.join()
    assert line.wrong == []
    assert sent + refused == ABORTS
    assert line.results.get("aborted, not interrupted", 0) == 0
    assert line.results.get("aborted, interrupted", 0) + line.results.get("done, interrupted", 0) == sent
    assert line.results["done, not interrupted"] == ABORTS + refused


PROFILED = """
import sys, threading
from dramatiq import Message
from dramatiq.broker import MessageProxy
from async_tracker.integrations.dramatiq.interruption import Aborted, Bracket

def work(bracket, how):
    other = threading.Thread(target=bracket.interrupt)
    other.start()
    other.join() if how == "late" else [other.is_alive() for _ in iter(int, 1)]

for how in ("late", "within"):
    bracket = Bracket(MessageProxy(Message(queue_name="q", actor_name="a", args=(), kwargs={}, options={})))
    try:
        bracket.call(work, bracket, how)
    except Aborted:
        pass
    calls = []
    sys.setprofile(lambda *event: calls.append(event))
    threading.get_ident()
    (lambda: None)()
    sys.setprofile(None)
    assert calls
print("profiled")
"""


def test_after_an_abort_the_process_can_be_profiled():
    """A pending exception that is taken back leaves CPython believing in one; 3.11 then never gets past the first profiled call."""
    ended = subprocess.run([sys.executable, "-c", PROFILED], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("profiled\n", "")


class Called:
    """A function that another thread interrupts at a moment of the test's choosing."""

    def __init__(self) -> None:
        self.message = new_message()
        self.bracket: Bracket | None = None
        self.result: Any = None
        self.is_there = threading.Event()
        self.may_go_on = threading.Event()

    def run(self, function: Any) -> threading.Thread:
        def body() -> None:
            bracket = self.bracket = Bracket(self.message)
            try:
                self.result = bracket.call(function)
            except BaseException as exc:
                self.result = exc

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    def interrupt(self) -> bool:
        assert self.bracket is not None
        return self.bracket.interrupt()

    def wait(self) -> None:
        self.is_there.set()
        self.may_go_on.wait()


def test_a_function_that_answers_with_a_result_has_ended_by_itself_and_nothing_is_left_for_the_next():
    called = Called()

    def swallow() -> str:
        try:
            called.wait()
            return "not interrupted"
        except Aborted:
            return "cleaned up"

    thread = called.run(swallow)
    called.is_there.wait()
    assert called.interrupt()
    called.may_go_on.set()
    thread.join()
    assert called.result == "cleaned up"
    assert not called.interrupt()


@pytest.mark.parametrize("error", [ValueError("its own"), KeyboardInterrupt()], ids=repr)
def test_whatever_it_raises_in_answer_it_is_not_retried(error: BaseException):
    called = Called()

    def fail() -> None:
        try:
            called.wait()
        except Aborted:
            raise error from None

    thread = called.run(fail)
    called.is_there.wait()
    assert called.interrupt()
    called.may_go_on.set()
    thread.join()
    assert called.result is error
    assert issubclass(type(error), called.message.options["throws"])


def test_a_function_that_was_not_interrupted_keeps_its_retries():
    called = Called()

    def fail() -> None:
        raise ValueError("its own")

    called.run(fail).join()
    assert isinstance(called.result, ValueError)
    assert not called.interrupt()
    assert "throws" not in called.message.options


def test_one_that_has_swallowed_it_can_be_interrupted_again():
    called = Called()
    again = threading.Event()

    def stubborn() -> None:
        try:
            called.wait()
        except Aborted:
            called.may_go_on.clear()
            again.set()
            called.may_go_on.wait()

    thread = called.run(stubborn)
    called.is_there.wait()
    assert called.interrupt()
    called.may_go_on.set()
    again.wait()
    assert called.interrupt()
    called.may_go_on.set()
    thread.join()
    assert isinstance(called.result, Aborted)
