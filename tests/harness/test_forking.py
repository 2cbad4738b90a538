"""A forked program starts, runs and ends as one that an interpreter of its own runs; what could differ is not forked."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.harness import forking
from tests.harness.alive import lives
from tests.harness.forking import ForkedProcess, Process
from tests.harness.wait import wait_until_sync

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="only Linux tells of the end of a process that is not one's own child"
)

Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start("-c", "...", NAME="value")`` writes to ``tmp_path / "out"``."""
    started: list[Process] = []

    def start(*arguments: str, **env: str) -> Process:
        with (tmp_path / "out").open("wb") as out:
            given = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
            started.append(forking.start([sys.executable, *arguments], env=given, cwd=tmp_path, stdout=out))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def both_ways(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> list[tuple[int, str]]:
    """What a program printed and how it ended: forked, and in an interpreter of its own."""
    given = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
    own = subprocess.run([sys.executable, *arguments], cwd=cwd, env=given, capture_output=True, text=True, check=False)
    with (cwd / "out").open("w+b") as out, (cwd / "err").open("w+b") as err:
        process = forking.start([sys.executable, *arguments], cwd=cwd, env=given, stdout=out, stderr=err)
        assert isinstance(process, ForkedProcess)
        code = process.wait(60)
    return [(code, (cwd / "out").read_text()), (own.returncode, own.stdout)]


SAY = "import os, sys; print(__name__, sys.argv, sys.path[:2], os.getcwd(), os.environ.get('MINE'), sys.stdin.read() == '')"


@pytest.mark.parametrize(
    "arguments", [["-c", SAY, "1", "2"], ["-m", "said", "1"], ["{tmp_path}/said.py", "1"]], ids=["code", "module", "script"]
)
def test_a_program_finds_what_it_would_find(tmp_path: Path, arguments: list[str]):
    (tmp_path / "said.py").write_text(SAY)
    given = [argument.format(tmp_path=tmp_path) if "{tmp_path}" in argument else argument for argument in arguments]
    forked, own = both_ways(given, cwd=tmp_path, env={"MINE": "é", "PYTHONPATH": str(tmp_path)})
    assert forked == own
    assert own[0] == 0


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("1 / 0", 1),
        ("import atexit; atexit.register(print, 'last')", 0),
        ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()", 0),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()", -signal.SIGTERM),
        ("import os; os._exit(7)", 7),
    ],
)
def test_a_program_ends_as_it_would_end(tmp_path: Path, program: str, code: int):
    forked, own = both_ways(["-c", program], cwd=tmp_path, env={})
    assert forked == own
    assert own[0] == code


def test_an_end_is_told_once_it_has_come_and_from_then_on(start: Start):
    process = start("-c", "import signal; signal.pause()")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert [process.wait(60), process.poll(), process.wait()] == [-signal.SIGKILL] * 3
    process.terminate()  # it is there no more, and no other process is hit


def test_several_live_at_a_time_and_each_has_an_end_of_its_own(start: Start):
    processes = [start("-c", "import signal; signal.pause()") for _ in range(3)]
    processes[1].kill()
    assert processes[1].wait(60) == -signal.SIGKILL
    assert [processes[0].poll(), processes[2].poll()] == [None, None]


def test_an_end_that_is_asked_for_no_more_harms_no_other(tmp_path: Path):
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "out").open("wb") as out:
        forgotten = forking.start([sys.executable, "-c", "import signal; signal.pause()"], env=env, stdout=out)
        pid = forgotten.pid
        del forgotten
        os.kill(pid, signal.SIGKILL)
        wait_until_sync(lambda: not lives(pid), description="it has ended")
        assert [forking.start([sys.executable, "-c", "pass"], env=env, stdout=out).wait(60) for _ in range(2)] == [0, 0]


def test_they_end_with_the_process_that_has_started_them(tmp_path: Path):
    starting = "forking.start([sys.executable, '-c', 'import signal; signal.pause()'], env={**os.environ}, stdout=sys.stdout.buffer)"
    program = (
        "import os, sys; from concurrent.futures import ThreadPoolExecutor; from tests.harness import forking; "
        f"pool = ThreadPoolExecutor(); pool.submit(lambda: {starting}).result(); pool.shutdown(); "  # no thread's end is theirs
        f"child = {starting}; "
        "print(child.pid, type(child).__name__, flush=True); os.kill(os.getpid(), 9)"
    )
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, "-c", program], cwd=forking.ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
    pid, kind = done.stdout.split()
    assert (done.returncode, kind) == (-signal.SIGKILL, "ForkedProcess")
    wait_until_sync(lambda: not lives(int(pid)), description="the forked process has ended as well")


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["-X", "dev", "-c", "pass"], {}),
        (["-c", "pass"], {"PYTHONASYNCIODEBUG": "1"}),
        (["-c", "pass"], {"TZ": "Asia/Tokyo"}),
        (["-c", "pass"], {"PYTHONUNBUFFERED": ""}),
    ],
)
def test_what_would_differ_has_an_interpreter_of_its_own(start: Start, arguments: list[str], env: dict[str, str]):
    process = start(*arguments, **env)
    assert isinstance(process, subprocess.Popen)
    assert process.wait(60) == 0


@pytest.mark.parametrize("path", ["async_tracker/__init__.py", "sitecustomize.py"])
def test_what_changes_what_it_would_import_has_an_interpreter_of_its_own(start: Start, tmp_path: Path, path: str):
    (tmp_path / "async_tracker").mkdir()
    (tmp_path / path).write_text("print('another one')")
    process = start("-c", "import async_tracker", PYTHONPATH=str(tmp_path))
    assert process.wait(60) == 0
    assert (tmp_path / "out").read_text() == "another one\n"
