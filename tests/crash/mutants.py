"""Take one safeguard out at a time, and show that a test notices: ``python -m tests.crash.mutants``, or ``make mutants``.

Each mutant is a copy of the package with one line changed, beside a copy of the tests. The copy without a change must pass all of the tests
that are used; every other one must fail each of those that are named for it, by the test's own assertion.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("async_tracker", "tests", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One safeguard, the line that it stands on, what is left without it, and the tests that must fail, each of them."""

    name: str
    path: str
    line: str
    without: str
    tests: tuple[str, ...]


SHARED = "tests/crash/test_shared_queues.py::"
KILLS = "tests/crash/test_kills.py::"
LIVE = "tests/crash/test_live_workers.py::"
SERVERS = "tests/crash/test_servers_that_fail.py::"
CHANGE = "tests/instance/test_change_of_server.py::"
STORE = "tests/store/test_transitions.py::"
QUARANTINE = "tests/integrations/arq/test_quarantine.py::"
WATCHING = "tests/recovery/test_orphans_kept_and_recovered.py::"
LOOKOUT = "tests/liveness/test_lookout.py::"
SWEEPER = "tests/recovery/test_sweeper.py::"
LEASE = "tests/recovery/test_lease.py::"
MODEL = "tests/model/test_store_model.py::test_whatever_happens_in_whatever_order_the_store_holds_what_a_dict_would"

SEQUENCE = "if seen and tonumber(seen) >= tonumber(sequence) then"
LATE = STORE + "test_a_registration_a_beat_or_a_word_of_the_watchdog_that_comes_late_changes_nothing"
IN_BETWEEN = STORE + "test_a_beat_a_connection_or_a_word_of_the_watchdog_in_between_saves_an_instance"

COST = "tests/instance/test_cost.py::"
APART = COST + "test_whatever_a_process_runs_its_writes_are_as_far_apart_as_gather"
QUIET_PROCESS = COST + "test_in_a_quiet_process_a_run_is_written_after_its_linger_and_the_next_one_after_gather"
FIRST_CHECK = "        return min(self.linger, self.gather) if quiet_for >= QUIET_SECONDS else self.gather"

ORDERS = "tests/control/test_orders.py::"
ARQ_ORDERS = "tests/control/test_arq_workers.py::"
ABORTS = "tests/control/test_aborts.py::"
ABORTED_ORPHAN = ABORTS + "test_an_orphan_that_was_being_aborted_is_finished_and_never_run_again"
ABORTED_MESSAGE = (
    "tests/integrations/dramatiq/test_adapter.py::test_an_orphan_that_was_being_aborted_is_a_dead_letter_and_never_queued_again"
)

MUTANTS = (
    Mutant(
        name="the gathering: in a process that is not quiet, looks at the journal are gather apart",
        path="async_tracker/policy.py",
        line=FIRST_CHECK,
        without="        return self.linger",
        tests=(QUIET_PROCESS,),
    ),
    Mutant(
        name="the gathering: a quiet process shows its run at once",
        path="async_tracker/policy.py",
        line=FIRST_CHECK,
        without="        return self.gather",
        tests=(QUIET_PROCESS,),
    ),
    Mutant(
        name="the gathering: what has only just started is not written",
        path="async_tracker/policy.py",
        line="        return min(self.linger, self.gather) if is_hasty else self.gather",
        without="        return 0.0",
        tests=(APART,),
    ),
    Mutant(
        name="the gathering: a second try is written before its function begins",
        path="async_tracker/instance/writer.py",
        line="        is_prompt = left >= 1.0",
        without="        is_prompt = False",
        tests=(
            "tests/instance/test_names_of_jobs.py::"
            "test_a_second_try_is_on_its_way_before_its_function_begins_also_where_a_beat_has_not_been_answered",
        ),
    ),
    Mutant(
        name="the gathering: where all runs are tried again, most are written as others are",
        path="async_tracker/instance/writer.py",
        line="        is_prompt = left >= 1.0",
        without="        is_prompt = True",
        tests=(APART,),
    ),
    Mutant(
        name="the gathering: the watchdog does not speak for runs that are merely young",
        path="async_tracker/instance/voice.py",
        line="        started_before_ms = monotonic_ms() - self._young_ms",
        without="        started_before_ms = monotonic_ms()",
        tests=(COST + "test_the_watchdog_does_not_speak_for_runs_that_are_merely_young",),
    ),
    Mutant(
        name="the gathering: a look is taken at a journal that holds only what is young",
        path="async_tracker/instance/writer.py",
        line="            self._check_in(self._ration.gather)",
        without="            self.is_awake = False",
        tests=(COST + "test_runs_that_end_at_once_are_not_written_and_one_that_lasts_soon_is",),
    ),
    Mutant(
        name="orders have an end: what its caller no longer waits for is not begun",
        path="async_tracker/instance/order_taker.py",
        line="        elif order.until_ms < now_ms:",
        without="        elif False:",
        tests=(ORDERS + "test_an_order_whose_caller_has_died_is_not_begun_after_its_time",),
    ),
    Mutant(
        name="an answer that comes too late is undone",
        path="async_tracker/instance/order_taker.py",
        line="        if handler.undo is None:",
        without="        if True:",
        tests=(ORDERS + "test_an_answer_that_comes_too_late_is_undone",),
    ),
    Mutant(
        name="a quiet arq worker claims nothing",
        path="async_tracker/integrations/arq/controls.py",
        line="            self._max_jobs, worker.max_jobs = worker.max_jobs, 0",
        without="            self._max_jobs = worker.max_jobs",
        tests=(ARQ_ORDERS + "test_a_quiet_worker_claims_nothing_and_runs_what_it_has_until_it_is_resumed",),
    ),
    Mutant(
        name="an answer that only the old server has is given to the new one",
        path="async_tracker/instance/registration.py",
        line="            self._orders.answer_again()",
        without="            pass",
        tests=(CHANGE + "test_an_answer_that_only_the_old_server_has_is_given_to_the_new_one",),
    ),
    Mutant(
        name="an answer so late that nothing tells of its order is undone",
        path="async_tracker/instance/order_taker.py",
        line="        if self._now_ms() > answered.order.until_ms + _TRACE_MS and await",
        without="        if False and await",
        tests=(ORDERS + "test_an_answer_so_late_that_nothing_tells_of_its_order_any_more_is_undone",),
    ),
    Mutant(
        name="an order of its own that was taken back is no reason to be quiet",
        path="async_tracker/instance/duty.py",
        line="            return await self._keep_only(left) if left != self._reasons else Done()",
        without="            return Done()",
        tests=(ORDERS + "test_a_quiet_or_a_resume_that_was_taken_back_after_it_was_done_is_undone",),
    ),
    Mutant(
        name="the older of two runs of one job is no claim under way",
        path="async_tracker/integrations/arq/controls.py",
        line='    return len(known | {task for task in asyncio.all_tasks() if variable_of_run_job(task, "self") is worker})',
        without="    return len(known)",
        tests=(ARQ_ORDERS + "test_two_runs_of_one_job_in_one_worker_are_no_claim_under_way",),
    ),
    Mutant(
        name="an abort is of one run: the task is that run's own",
        path="async_tracker/integrations/arq/aborts.py",
        line="        return inner if made_here is inner or",
        without="        return inner if True or",
        tests=(ABORTS + "test_another_run_of_the_same_id_is_not_hit",),
    ),
    Mutant(
        name="what ended while its abort was noted is left alone",
        path="async_tracker/integrations/arq/aborts.py",
        line="        if outer is None or inner.done() or _has_ended(run):  # it ended while that was noted",
        without="        if outer is None:",
        tests=(ABORTS + "test_a_job_that_ends_while_the_abort_is_noted_has_ended_before",),
    ),
    Mutant(
        name="a job that is claimed and has not begun is waited for",
        path="async_tracker/integrations/arq/aborts.py",
        line="(run is None and not self._claims.is_held(job_id, token))",
        without="run is None",
        tests=(ABORTS + "test_a_job_whose_task_has_not_begun_is_aborted_once_it_has",),
    ),
    Mutant(
        name="what was being aborted is not run again by a sweep",
        path="async_tracker/integrations/arq/lua/release.lua",
        line="if redis.call('EXISTS', abort) == 1 then",
        without="if false then",
        tests=(ABORTED_ORPHAN,),
    ),
    Mutant(
        name="what was being aborted is not put into quarantine",
        path="async_tracker/integrations/arq/lua/quarantine.lua",
        line=" or redis.call('EXISTS', abort) == 1 then",
        without=" then",
        tests=(ABORTED_ORPHAN,),
    ),
    Mutant(
        name="a message that was being aborted is not run again by a sweep",
        path="async_tracker/integrations/dramatiq/lua/release.lua",
        line="if redis.call('EXISTS', abort) == 1 then",
        without="if false then",
        tests=(ABORTED_MESSAGE,),
    ),
    Mutant(
        name="a message that was being aborted is not put into quarantine",
        path="async_tracker/integrations/dramatiq/lua/quarantine.lua",
        line="if redis.call('EXISTS', abort) == 1 then",
        without="if false then",
        tests=(ABORTED_MESSAGE,),
    ),
    Mutant(
        name="a quiet dramatiq worker renews its broker's heartbeat",
        path="async_tracker/integrations/dramatiq/tracked_worker.py",
        line="                self._presence.keep()",
        without="                pass",
        tests=(
            "tests/control/test_dramatiq_workers.py::test_a_quiet_worker_keeps_its_messages_beside_an_eager_one_for_three_heartbeat_timeouts",
        ),
    ),
    Mutant(
        name="the fence: claims that name their run",
        path="async_tracker/integrations/arq/claims.py",
        line='_UNNAMED = b"1"',
        without='_UNNAMED = b"none of them"',
        tests=(SHARED + "test_every_claim_of_a_tracked_worker_names_it_cron_included",),
    ),
    Mutant(
        name="the grace: time to come back with another connection",
        path="async_tracker/policy.py",
        line="if evidence.connection is not Connection.GONE or evidence.gone_for < limits.disconnect_grace:",
        without="if evidence.connection is not Connection.GONE:",
        tests=(LIVE + "test_a_worker_that_takes_a_while_to_find_its_way_back_is_within_its_grace",),
    ),
    Mutant(
        name="the patience: time to return after an outage",
        path="async_tracker/policy.py",
        line="if evidence.server_age is not None and evidence.server_age < limits.heartbeat_ttl and not evidence.has_returned:",
        without="if False:",
        tests=(SERVERS + "test_an_outage_that_outlasts_every_heartbeat_makes_nobody_dead",),
    ),
    Mutant(
        name="what a failover lost is written again",
        path="async_tracker/instance/registration.py",
        line='if before not in ("", self._server):',
        without="if False:",
        tests=(CHANGE + "test_a_failover_that_loses_the_newest_writes_leaves_records_and_counters_right_within_two_beats",),
    ),
    Mutant(
        name="what a failover lost is counted again",
        path="async_tracker/instance/totals.py",
        line="COUNTERS_REMEMBERED = 20_000",
        without="COUNTERS_REMEMBERED = 0",
        tests=(CHANGE + "test_counters_of_the_lost_second_are_counted_once_and_those_that_arrived_not_twice",),
    ),
    Mutant(
        name="a death with a change of the server counts against no job",
        path="async_tracker/recovery/sweeper.py",
        line="is_blameless=verdict.is_blameless,",
        without="is_blameless=False,",
        tests=(CHANGE + "test_who_has_not_come_back_is_counted_apart_and_then_dead_at_no_job_s_cost",),
    ),
    Mutant(
        name="the token check: only the dead run's own claim is released",
        path="async_tracker/integrations/arq/lua/release.lua",
        line="if redis.call('GET', in_progress) ~= claim then",
        without="if false then",
        tests=(SHARED + "test_an_orphan_that_another_worker_has_picked_up_again_is_left_alone",),
    ),
    Mutant(
        name="the queue check: only what is queued is recovered",
        path="async_tracker/integrations/arq/lua/release.lua",
        line="if not redis.call('ZSCORE', queue, id) then",
        without="if false then",
        tests=(SHARED + "test_an_orphan_that_is_queued_no_more_is_not_recovered",),
    ),
    Mutant(
        name="the token check of a quarantine",
        path="async_tracker/integrations/arq/lua/quarantine.lua",
        line="if redis.call('GET', in_progress) ~= claim or not",
        without="if not",
        tests=(QUARANTINE + "test_a_job_whose_claim_is_another_ones_by_now_is_not_quarantined",),
    ),
    Mutant(
        name="the queue check of a quarantine",
        path="async_tracker/integrations/arq/lua/quarantine.lua",
        line=" or not redis.call('ZSCORE', queue, id) then",
        without=" then",
        tests=(QUARANTINE + "test_a_job_that_was_taken_off_its_queue_is_not_quarantined",),
    ),
    Mutant(
        name="the sequence number: a late write changes nothing",
        path="async_tracker/store/lua/write.lua",
        line=SEQUENCE,
        without="if false then",
        tests=(SERVERS + "test_a_batch_that_is_delivered_late_changes_nothing", MODEL),
    ),
    Mutant(
        name="the sequence number of a beat", path="async_tracker/store/lua/beat.lua", line=SEQUENCE, without="if false then", tests=(LATE,)
    ),
    Mutant(
        name="the sequence number of the watchdog's word",
        path="async_tracker/store/lua/speak.lua",
        line=SEQUENCE,
        without="if false then",
        tests=(LATE,),
    ),
    Mutant(
        name="the sequence number of a registration",
        path="async_tracker/store/lua/register.lua",
        line=SEQUENCE,
        without="if false then",
        tests=(LATE,),
    ),
    Mutant(
        name="the judged heartbeat: who has beaten since is not declared dead",
        path="async_tracker/store/lua/declare_dead.lua",
        line="if redis.call('ZSCORE', instances, id) ~= judged_heartbeat then",
        without="if false then",
        tests=(IN_BETWEEN, MODEL),
    ),
    Mutant(
        name="the judged connections: who has come back since is not declared dead",
        path="async_tracker/store/lua/declare_dead.lua",
        line="if (redis.call('HGET', connections, id) or '') ~= judged_connections then",
        without="if false then",
        tests=(IN_BETWEEN,),
    ),
    Mutant(
        name="the judged word: whose watchdog has spoken since is not declared dead",
        path="async_tracker/store/lua/declare_dead.lua",
        line="if (redis.call('ZSCORE', watchdogs, id) or '') ~= judged_word then",
        without="if false then",
        tests=(IN_BETWEEN,),
    ),
    Mutant(
        name="the stall that was told: other sweepers do not tell it again",
        path="async_tracker/store/lua/note_stall.lua",
        line="if redis.pcall('HGET', instance, 'stalled_after_ms') == judged_heartbeat then",
        without="if false then",
        tests=(SWEEPER + "test_each_stall_is_announced_once_however_many_sweepers_see_it",),
    ),
    Mutant(
        name="the stall that was judged: of who has beaten since none is told",
        path="async_tracker/store/lua/note_stall.lua",
        line="if redis.call('ZSCORE', instances, id) ~= judged_heartbeat then",
        without="if false then",
        tests=(SWEEPER + "test_a_stall_is_no_news_where_the_instance_has_beaten_meanwhile",),
    ),
    Mutant(
        name="the probe's question: who is late is judged by the list, as a sweep judges",
        path="async_tracker/queries/questions.py",
        line="        return {} if is_late else few",
        without="        return few",
        tests=("tests/queries/test_few_connections.py::test_each_of_few_is_asked_for_by_itself_by_connections_of_our_own",),
    ),
    Mutant(
        name="the receipt: a release is known to whoever carries on",
        path="async_tracker/integrations/arq/lua/release.lua",
        line="if there ~= 'none' then",
        without="if false then",
        tests=(KILLS + "test_a_sweeper_that_dies_half_way_is_carried_on_by_the_next",),
    ),
    Mutant(
        name="the claims: who only tracks buries nobody whose claims stand",
        path="async_tracker/recovery/leftovers.py",
        line="if name in holding or not await",
        without="if not await",
        tests=(WATCHING + "test_a_job_that_was_claimed_and_never_started_is_given_back_and_no_death_counts_against_it",),
    ),
    Mutant(
        name="the book of what is settled: a sweeper that comes late settles nothing again",
        path="async_tracker/store/lua/adopt.lua",
        line="if not redis.call('HGET', settled, token) then",
        without="if true then",
        tests=(STORE + "test_what_is_settled_stays_settled_for_a_sweeper_that_comes_late",),
    ),
    Mutant(
        name="the counter of disconnects: changed, and not only grown",
        path="async_tracker/liveness/disconnects.py",
        line="return now.closed != before.closed",
        without="return now.closed > before.closed",
        tests=(LOOKOUT + "test_a_death_that_hides_behind_a_reset_of_the_statistics_is_seen_in_the_same_look",),
    ),
    Mutant(
        name="the rotating check: what no counter tells is found all the same",
        path="async_tracker/liveness/roll.py",
        line="least = max(LEAST_SHARE, math.ceil(len(self) / LOOKS_A_ROUND))",
        without="least = 0",
        tests=(LOOKOUT + "test_a_death_that_no_counter_tells_of_is_found_within_six_looks",),
    ),
    Mutant(
        name="the absence: who comes back gives the others time to return",
        path="async_tracker/liveness/presence.py",
        line="if heard_at_ms is not None and now_ms - heard_at_ms >= 1000.0 * self.away_after:",
        without="if False:",
        tests=("tests/recovery/test_sweeper.py::test_a_sweeper_that_was_out_of_reach_itself_gives_the_silent_time_to_return",),
    ),
    Mutant(
        name="the short absence: what makes heartbeats of the living stale is one",
        path="async_tracker/policy.py",
        line="return max(heartbeat_ttl - heartbeat_interval, 1.5 * heartbeat_interval)",
        without="return heartbeat_ttl",
        tests=(SWEEPER + "test_a_silence_that_makes_heartbeats_of_the_living_stale_is_an_absence_however_short",),
    ),
    Mutant(
        name="the sweeper itself lives, whatever is stored of it",
        path="async_tracker/recovery/sweeper.py",
        line="verdict.state is InstanceState.DEAD and name != itself and",
        without="verdict.state is InstanceState.DEAD and",
        tests=(SWEEPER + "test_a_sweeper_never_declares_itself_dead_whatever_is_stored_of_it",),
    ),
    Mutant(
        name="the look of a stand-by: that a holder was there is no answer for the next holder",
        path="async_tracker/recovery/lease.py",
        line="return answer is True and standing == before, is_ours, standing, instances",
        without="return answer is True, is_ours, standing, instances",
        tests=(LEASE + "test_a_lease_that_has_gone_over_to_another_holder_is_not_judged_by_the_one_before",),
    ),
    Mutant(
        name="a lost beat: what may not have arrived is sent again",
        path="async_tracker/instance/heartbeat.py",
        line="            self._told.pop(name, None)",
        without="            pass",
        tests=("tests/instance/test_fields_of_a_beat.py::test_what_may_not_have_arrived_is_sent_again_also_where_it_is_as_it_was",),
    ),
)


def main() -> int:
    """Run the control and every mutant, or those whose names hold the words of the command line; returns 0 when each was noticed."""
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in sys.argv[1:])]
    unmoved = _run(None, sorted({test for mutant in chosen for test in mutant.tests}))
    print(f"{'passes' if not unmoved.failed else 'FAILS'}: nothing taken out", flush=True)
    all_noticed = not unmoved.failed
    for mutant in chosen:
        outcome = _run(mutant, mutant.tests)
        passed = [test for test in mutant.tests if _function(test) not in outcome.asserted]
        all_noticed = all_noticed and not passed
        print(f"{'SURVIVES' if passed else 'noticed'}: without {mutant.name}", flush=True)
        for test in passed:
            print(f"  {test} has not failed by its own assertion:\n{outcome.said[-4_000:]}", flush=True)
    return 0 if all_noticed else 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some tests: whether anything failed, the functions that failed by an assertion, and what pytest said."""

    failed: bool
    asserted: frozenset[str]
    said: str


def _run(mutant: Mutant | None, tests: Sequence[str]) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="async-tracker-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, copy / name)
        if mutant is not None:
            _take_out(mutant, copy / mutant.path)
        report = copy / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", f"--junitxml={report}", *tests]
        ended = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
        asserted = frozenset(_asserted(ET.parse(report).iter("testcase"))) if report.exists() else frozenset()
        return Outcome(failed=ended.returncode != 0, asserted=asserted, said=ended.stdout + ended.stderr)


def _asserted(cases: Iterable[ET.Element]) -> Iterator[str]:
    """Give the tests that failed by an assertion; one that broke, or whose fixture did, has noticed nothing."""
    for case in cases:
        for failure in case.iter("failure"):
            if re.match(r"(AssertionError|assert |\S*NotReached|Failed: DID NOT RAISE)", failure.get("message", "")):
                yield case.get("name", "").split("[")[0]


def _function(test: str) -> str:
    return test.rsplit("::", 1)[-1]


def _take_out(mutant: Mutant, path: Path) -> None:
    text = path.read_text()
    if text.count(mutant.line) != 1:
        raise SystemExit(f"{mutant.path} holds {mutant.line!r} {text.count(mutant.line)} times: say anew where {mutant.name} stands")
    path.write_text(text.replace(mutant.line, mutant.without))


if __name__ == "__main__":
    sys.exit(main())
