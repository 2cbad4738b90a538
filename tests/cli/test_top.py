"""``top``: keys, pictures of any size, and a real terminal while Redis goes and comes back."""

import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from rich.cells import cell_len

from async_tracker import FunctionStats, Instance, InstanceState, Job, QueueDepth, Tracker
from async_tracker.cli.top.reading import Reading
from async_tracker.cli.top.screen import ASCII, UNICODE, Marks, Size, bounds_of, picture
from async_tracker.cli.top.state import VIEWS, Bounds, State, View, keys_in, pressed
from async_tracker.embedded import EmbeddedServer
from tests.cli.conftest import environment
from tests.harness.screen import ProgramOnTerminal, Screen
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until

NOON = datetime(2026, 7, 29, 12, tzinfo=UTC)
BOUNDS = Bounds(columns=("INSTANCE", "STATE", "BUSY"), rows=100, page=10)
STRANGE = "web [red]\n\x1b[31m漢字漢字漢字漢字漢字漢字漢字漢字"


def instance(number: int, **facts: Any) -> Instance:
    name = f"web-{number:03d}:7:ab"
    common: dict[str, Any] = {"state": InstanceState.ALIVE, "reason": "", "library": "arq", "host": "web", "pid": 7, "queues": ("mail",)}
    times = {"started_at": NOON - timedelta(hours=1), "heartbeat_at": NOON, "heartbeat_age": 0.5}
    return Instance(**{"instance_id": name, **common, **times, "concurrency": 10, "busy": number, "queue": "mail", **facts})


def job(number: int, **facts: Any) -> Job:
    return Job(
        **{
            "job_id": f"job-{number:03d}",
            "instance_id": "web-001:7:ab",
            "run": "r",
            "started_at": NOON,
            "running_for": float(number),
            "function": "send",
            **facts,
        }
    )


def reading(**facts: Any) -> Reading:
    pair = ("send", "mail")
    row = FunctionStats(function="send", queue="mail", started=1_234, failed=3, run_time_p95=0.25)
    known: dict[str, Any] = {
        "instances": [instance(number) for number in range(1, 4)],
        "jobs": [job(number) for number in range(1, 6)],
        "functions": [row],
        "window": {pair: row},
        "function_rates": {pair: 120.0},
        "instance_rates": {"web-001:7:ab": 60.0},
        "queues": [QueueDepth(queue="mail", library="arq", depth=7, due=5, oldest_wait=4.25)],
    }
    return Reading(namespace="my_app", url="redis://host:6379/0", taken_at=NOON, **{**known, **facts})


def drawn(
    found: Reading, state: State, *, width: int = 80, height: int = 24, trouble: str | None = None, marks: Marks = UNICODE
) -> list[str]:
    lines = picture(found, state, Size(width=width, height=height), trouble=trouble, every=2.0, marks=marks)
    return [line.plain for line in lines]


def after(*keys: str, bounds: Bounds = BOUNDS) -> State:
    state = State()
    for key in keys:
        state = pressed(state, key, bounds)
    return state


# keys


def test_keys_choose_the_view_the_column_and_the_direction():
    assert [after(*keys).view for keys in [("2",), ("tab", "tab"), ("shift-tab",), ("4", "tab")]] == [
        View.JOBS,
        View.FUNCTIONS,
        View.QUEUES,
        View.INSTANCES,
    ]
    assert [after(*keys).order.column for keys in [(">",), ("right", "right"), ("<",)]] == ["BUSY", "INSTANCE", "INSTANCE"]
    assert after("r").order.is_reversed
    assert not after("r", "2").order.is_reversed, "each view has an order of its own"
    assert after("r", "2", "1").order.is_reversed


def test_rows_are_scrolled_and_never_beyond_their_end():
    moves = [("down",), ("page down", "page down", "up"), ("end",), ("end", "down"), ("end", "home"), ("up",)]
    assert [after(*keys).first for keys in moves] == [1, 19, 90, 90, 0, 0]
    assert after("end", bounds=Bounds(columns=(), rows=3, page=10)).first == 0


def test_what_is_typed_after_a_slash_is_a_filter_and_no_key():
    state = after("/", *"quiet 2")
    assert (state.wanted, state.is_typing, state.is_over, state.view) == ("quiet 2", True, False, View.INSTANCES)
    assert pressed(state, "enter", BOUNDS).wanted == "quiet 2"
    assert pressed(pressed(state, "enter", BOUNDS), "esc", BOUNDS).wanted == ""


def test_space_pauses_and_q_ends_it_and_other_keys_change_nothing():
    assert after(" ").is_paused
    assert not after(" ", " ").is_paused
    assert after("q").is_over
    assert after("x", "9", "0", "é", "enter", "backspace") == State()


def test_sequences_of_keys_are_read_however_they_are_cut():
    assert list(keys_in("\x1b[1;5A\x1b[200~x\x1bOB")) == ["x", "down"]
    assert list(keys_in("\x1b[")) == []


# pictures


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (20, 4), (60, 12), (80, 24), (120, 40), (300, 100)])
@pytest.mark.parametrize("marks", [UNICODE, ASCII])
def test_a_picture_has_the_lines_of_the_terminal_and_none_is_wider(view: View, width: int, height: int, marks: Marks):
    odd = reading(instances=[instance(1, instance_id=STRANGE, state=InstanceState.DEAD)], jobs=[job(1, job_id=STRANGE, function=STRANGE)])
    for found in (odd, reading(), reading(instances=(), jobs=(), functions=(), window={}, queues=(), function_rates={})):
        lines = drawn(found, State(view=view, wanted="e" if height > 24 else ""), width=width, height=height, marks=marks)
        assert len(lines) == height
        assert max(map(cell_len, lines)) <= width
        assert not any("\x1b" in line or "\n" in line for line in lines)
    if marks is ASCII:
        assert all(line.isascii() for line in drawn(reading(), State(view=view), width=width, height=height, marks=ASCII))


def test_at_80_columns_each_view_tells_what_matters():
    found = reading()
    expected = {
        View.INSTANCES: ("web-001:7:ab", "alive", "1/10", "60", "500 ms"),
        View.JOBS: ("job-005", "send", "5.0 s"),
        View.FUNCTIONS: ("send", "mail", "120", "3", "250 ms"),
        View.QUEUES: ("mail", "7", "5", "4.2 s", "120", "6/30", "3"),
    }
    for view, texts in expected.items():
        rows = " ".join(drawn(found, State(view=view))[4:-1]).split()
        assert [text for text in " ".join(texts).split() if text not in rows] == []
    assert "3 instances · 6/30 busy · 0 orphans · 120 runs/min · 7 waiting, oldest 4.2 s" in drawn(found, State())


def test_rows_are_sorted_by_the_column_that_was_chosen_the_worst_instances_first():
    stalled = instance(9, state=InstanceState.STALLED_BLOCKED)
    found = reading(instances=[instance(1), instance(3), instance(2), stalled])
    names = [line.split(":")[0] for line in drawn(found, State())[4:8]]
    assert names == ["web-009", "web-001", "web-002", "web-003"]
    size = Size(width=80, height=24)
    by_busy = pressed(State(), ">", bounds_of(found, State(), size))
    assert [line.split(":")[0] for line in drawn(found, by_busy)[4:8]] == ["web-009", "web-003", "web-002", "web-001"]
    assert "BUSY▼" in drawn(found, by_busy)[3]
    turned = pressed(by_busy, "r", bounds_of(found, by_busy, size))
    assert [line.split(":")[0] for line in drawn(found, turned)[4:8]] == ["web-001", "web-002", "web-003", "web-009"]


def test_a_filter_leaves_out_rows_and_says_of_how_many():
    lines = drawn(reading(), State(view=View.JOBS, wanted="JOB-00"))
    assert "/ JOB-00  5" in lines[2]
    lines = drawn(reading(), State(view=View.JOBS, wanted="-003"))
    assert "1 of 5" in lines[2]
    assert [line.split()[0] for line in lines[4:-1] if line] == ["job-003"]


def test_more_rows_than_fit_are_scrolled_to():
    found = reading(jobs=[job(number) for number in range(100)])
    state = State(view=View.JOBS)
    state = pressed(state, "end", bounds_of(found, state, Size(width=80, height=24)))
    assert [line.split()[0] for line in drawn(found, state)[4:-1]][-1] == "job-000"
    assert state.first == 100 - 19


def test_what_is_not_of_just_now_says_so_and_why():
    assert drawn(reading(), State(), trouble="12 s old, trying again: Redis cannot be reached")[-1].startswith("12 s old, trying again")
    assert "PAUSED" in drawn(reading(), State(is_paused=True))[0]


def test_what_is_not_known_is_no_0():
    found = reading(function_rates={}, queues=(), queues_error="their Redis did not answer")
    assert "- runs/min" in drawn(found, State())[1]
    assert "waiting" not in drawn(found, State())[1]
    queues = drawn(found, State(view=View.QUEUES))
    assert "their Redis did not answer" in queues[2]
    assert queues[4].split()[:5] == ["mail", "-", "-", "-", "-"]


# a real terminal


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., ProgramOnTerminal]]:
    made: list[ProgramOnTerminal] = []

    def start(url: str, *arguments: str, env: dict[str, str] | None = None, **size: int) -> ProgramOnTerminal:
        command = [sys.executable, "-m", "async_tracker.cli", "--redis-url", url, "--namespace", "my_app", "top", "--interval", "0.2"]
        made.append(ProgramOnTerminal([*command, *arguments], env=environment(env), **size))
        return made[-1]

    yield start
    for program in made:
        program.__exit__(None, None, None)


async def _shown(program: ProgramOnTerminal, *texts: str) -> None:
    await wait_until(partial(program.shows, *texts), timeout=30, description=f"the screen shows {texts}: {program.screen.lines}")


async def _ended(program: ProgramOnTerminal) -> int:
    def is_over() -> bool:
        program.look()
        return program.process.poll() is not None

    await wait_until(is_over, timeout=30, description="the program has ended")
    return program.process.wait()


async def test_it_lives_through_keys_a_resize_and_a_redis_that_goes_and_comes_back(
    make_server: Callable[..., EmbeddedServer], on_terminal: Callable[..., ProgramOnTerminal]
):
    server = make_server(appendonly=True)
    tracker = Tracker(
        namespace="my_app", redis_options={"url": server.url}, instance_id="pod", heartbeat_interval=0.2, heartbeat_ttl=30, **KNOWN
    )
    async with tracker, tracker.register(queue="mail", concurrency=4), tracker.track("job-42", function="send_email"):
        program = on_terminal(server.url)
        await _shown(program, "my_app on", "1 instance", "[1 instances]", "pod:", "1/4", "q quit")
        assert program.screen.is_alternate
        assert program.screen.hides_cursor
        program.type("2")
        await _shown(program, "[2 jobs]", "job-42", "send_email")
        program.type("/nothing\r")
        await _shown(program, "/ nothing", "0 of 1")
        program.type("\x1b")
        await _shown(program, "[2 jobs]", "job-42")
        program.type("3")
        await _shown(program, "[3 functions]", "send_email")
        program.type("\t")
        await _shown(program, "[4 queues]", "mail", "1/4")
        program.type("1 ")
        await _shown(program, "PAUSED", "pod:")
        program.resize(120, 40)
        await _shown(program, "PAUSED", "UP QUEUE")
        await wait_until(lambda: program.look()[39].startswith("1-4 view"), timeout=30, description="the keys stand on the last line")
        program.type(" ")
        server.kill()
        await _shown(program, "old, trying again", "pod:")
        server.restart()
        await wait_until(lambda: program.shows("q quit", "pod:"), timeout=30, description="it shows what is again")
        program.type("q")
        assert await _ended(program) == 0
    assert not program.screen.is_alternate
    assert not program.screen.hides_cursor
    assert program.mode == program.mode_before


async def test_without_colours_and_with_ascii_alone_it_is_legible(redis_url: str, on_terminal: Callable[..., ProgramOnTerminal]):
    plain = on_terminal(redis_url, env={"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"})
    await _shown(plain, "0 instances | 0 busy", "[1 instances]", "STATE^")
    assert plain.screen.colours == set()
    plain.type("\x03")
    assert await _ended(plain) == 130
    assert plain.mode == plain.mode_before
    assert not plain.screen.is_alternate


async def test_the_terminal_is_given_back_by_a_signal_also_while_a_filter_is_typed_and_for_the_time_of_a_ctrl_z(
    redis_url: str, on_terminal: Callable[..., ProgramOnTerminal]
):
    program = on_terminal(redis_url)
    await _shown(program, "[1 instances]")
    program.type("\x1a")
    await wait_until(lambda: _has_given_back(program), timeout=30, description="the shell has its terminal")
    assert program.process.poll() is None
    program.process.send_signal(signal.SIGCONT)
    await _shown(program, "[1 instances]", "q quit")
    assert program.screen.is_alternate
    program.type("/qqq")
    await _shown(program, "/ qqq_")
    program.process.terminate()
    assert await _ended(program) == 0
    assert _has_given_back(program)


def _has_given_back(program: ProgramOnTerminal) -> bool:
    program.look()
    return not program.screen.is_alternate and program.mode == program.mode_before


@pytest.mark.parametrize(("arguments", "says"), [([], "top needs a terminal"), (["--json"], "top is for people")])
async def test_without_a_terminal_it_says_what_to_write_instead(cli, arguments: list[str], says: str):
    answer = await cli.within("top", *arguments)
    assert answer.code == 2
    assert says in answer.err


async def test_a_redis_that_is_not_there_at_the_beginning_ends_it_with_3(on_terminal: Callable[..., ProgramOnTerminal]):
    program = on_terminal("redis://127.0.0.1:1")
    assert await _ended(program) == 3
    assert "cannot be reached" in " ".join(program.look())


def test_the_screen_of_these_tests_draws_as_a_terminal_does():
    screen = Screen(5, 2)
    screen.feed("\x1b[?1049h\x1b[Hab\x1b[1;31mc\x1b[0m\r\nx\x1b")
    screen.feed("[2;4Hyz!")
    assert screen.lines == ["x  yz", "!"]
    assert screen.colours == {"31"}
