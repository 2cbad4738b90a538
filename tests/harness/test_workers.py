"""Workers as processes: they really run, really die, and none stays behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from arq import create_pool
from arq.connections import RedisSettings

from tests.harness.alive import lives
from tests.harness.forking import ROOT
from tests.harness.ledger import Ledger
from tests.harness.wait import NotReached, lived, wait_until, wait_until_sync
from tests.harness.workers import Workers

SLEEPER = [sys.executable, "-c", "import time; print('ready'); time.sleep(60)"]


async def test_a_real_arq_worker_runs_jobs_and_the_ledger_knows_of_its_death(workers: Workers, ledger: Ledger, redis_url: str):
    worker = workers.start("tests.harness.arq_app.WorkerSettings", env={"TEST_REDIS_URL": redis_url, "TEST_LEDGER": str(ledger.path)})
    pool = await create_pool(RedisSettings.from_dsn(redis_url))
    for job_id, seconds in (("quick", 0), ("long", 60)):
        ledger.enqueued(job_id)
        await pool.enqueue_job("hold", seconds, _job_id=job_id)
    await wait_until(
        lambda: ledger.read().succeeded() == {"quick"} and ledger.read().runs_of("long"), timeout=20, description="both jobs were started"
    )
    worker.kill()
    [run] = ledger.read().runs_of("long")
    assert run.pid == worker.pid
    assert run.ended_at_ns is not None
    assert ledger.read().lost() == {"long"}
    await pool.aclose()


def test_no_worker_is_left_behind_not_even_a_suspended_one_or_a_forked_child(tmp_path: Path):
    forking = "import os, time; os.fork(); os.write(1, b'%d ready\\n' % os.getpid()); time.sleep(60)"  # in one piece: both write
    with Workers(tmp_path) as workers:
        suspended = workers.start_program(SLEEPER)
        parent = workers.start_program([sys.executable, "-c", forking])
        suspended.wait_for_output("ready")
        wait_until_sync(lambda: parent.output().count("ready") == 2, description="the fork and its parent run")
        suspended.suspend()
    assert [worker.exit_code for worker in (suspended, parent)] == [-signal.SIGKILL, -signal.SIGKILL]
    for line in parent.output().splitlines():
        pid = int(line.split()[0])
        wait_until_sync(lambda pid=pid: not lives(pid), description=f"process {pid} has ended")


def test_a_worker_ends_when_the_test_run_is_killed(tmp_path: Path):
    if not sys.platform.startswith("linux"):
        return  # no other kernel can do it
    program = (
        "import sys, time, pathlib; from tests.harness.workers import Workers\n"
        "worker = Workers(pathlib.Path(sys.argv[1])).start_program([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run.stdout as stdout:
        pid = int(stdout.readline())
    run.kill()
    run.wait()
    wait_until_sync(lambda: not lives(pid), description="the worker ended with the run")


def test_a_worker_that_ends_early_fails_the_wait_at_once_with_what_it_printed(workers: Workers):
    worker = workers.start_program([sys.executable, "-c", "raise SystemExit('no such queue')"])
    with pytest.raises(AssertionError, match="no such queue"):
        worker.wait_for_output("ready")


def test_a_worker_that_does_not_leave_fails_the_wait_with_what_it_printed(workers: Workers):
    worker = workers.start_program(SLEEPER)
    worker.wait_for_output("ready")
    with pytest.raises(AssertionError, match="ready"):
        worker.wait(timeout=0.05)
    worker.ask_to_leave()
    assert worker.wait() == -signal.SIGTERM


def test_a_suspended_worker_goes_on_when_it_is_resumed(workers: Workers):
    worker = workers.start_program([sys.executable, "-c", "print('ready'); input_seen = __import__('signal').pause()"])
    worker.wait_for_output("ready")
    worker.suspend()
    worker.ask_to_leave()
    with pytest.raises(AssertionError):
        worker.wait(timeout=0.05)
    worker.resume()
    assert worker.wait() == -signal.SIGTERM


def test_a_worker_does_not_inherit_the_trackers_own_environment(workers: Workers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKER_REDIS_URL", "redis://somebody-else")
    monkeypatch.setenv("REDIS_URL", "redis://somebody-else")
    worker = workers.start_program([sys.executable, "-c", "import os; print(sorted(os.environ))"], env={"TRACKER_QUEUE": "mail"})
    worker.wait()
    assert "TRACKER_QUEUE" in worker.output()
    assert "REDIS_URL" not in worker.output()


async def test_a_wait_that_runs_out_fails_and_says_what_it_waited_for():
    with pytest.raises(NotReached, match="pigs fly"):
        await wait_until(lambda: 0, timeout=0.02, description="pigs fly")
    with pytest.raises(NotReached, match="pigs fly"):
        wait_until_sync(lambda: 0, timeout=0.02, description="pigs fly")


def test_a_wait_on_a_busy_machine_gives_up_after_as_many_polls_as_on_an_idle_one():
    polls = 0

    def slow() -> None:
        nonlocal polls
        polls += 1
        time.sleep(0.02)

    with pytest.raises(NotReached):
        wait_until_sync(slow, timeout=0.05, poll_interval=0.01, description="pigs fly")
    assert polls == 5


async def test_what_a_loop_has_lived_are_the_seconds_in_which_it_ran():
    async with lived() as taken:
        time.sleep(0.3)
        await wait_until(lambda: taken.naps, description="the loop runs again")
    assert taken.seconds <= 0.2


async def test_a_wait_returns_what_it_waited_for():
    answers = iter(["", "", "here"])

    async def ask() -> str:
        return next(answers)

    assert await wait_until(ask, description="an answer") == "here"
