"""``history``: what was, in small charts, as a table, and as a document."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
import redis.asyncio

from async_tracker import Deploy, History, HistoryPoint, QueueSample, Tracker
from async_tracker.cli.charts import ASCII, BLOCKS, GAP, Glyphs, chart, gathered
from async_tracker.cli.history import picture, step_lines
from async_tracker.history.histogram import Histogram
from async_tracker.history.minutes import sample_of
from async_tracker.history.packing import Span, entry, pack
from async_tracker.namespace import Namespace
from async_tracker.records import QueueDepth
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.counters import counted_name

NOON = datetime(2026, 7, 29, 12, tzinfo=UTC)


def point(minute: int, **facts: Any) -> HistoryPoint:
    return HistoryPoint(at=NOON + timedelta(minutes=minute), **{"is_gap": False, **facts})


def told(points: Sequence[HistoryPoint], **facts: Any) -> History:
    return History(function=None, queue=None, step=60.0, points=tuple(points), **facts)


def drawn(history: History, *, width: int = 80, glyphs: Glyphs = BLOCKS) -> list[str]:
    return [line.plain for line in picture(history, namespace="my_app", width=width, glyphs=glyphs)]


def test_a_gap_is_no_0_and_0_is_no_gap_and_no_value_is_neither():
    assert chart([0.0, GAP, None, 9.0], top=9.0, rows=1, glyphs=BLOCKS) == ["▁· █"]
    assert chart([0.0, GAP, None, 9.0], top=9.0, rows=2, glyphs=ASCII) == ["   #", "_? #"]


@pytest.mark.parametrize("glyphs", [BLOCKS, ASCII])
def test_a_little_is_never_drawn_as_nothing_and_nearly_all_never_as_all(glyphs: Glyphs):
    lowest, little, nearly, full = zip(*chart([0.0, 1.0, 999_999.0, 1e6], top=1e6, rows=2, glyphs=glyphs), strict=True)
    assert len({lowest, little, nearly, full}) == 4


def test_of_more_values_than_columns_each_column_shows_the_highest_and_a_gap_only_where_all_are_one():
    assert gathered([1.0, GAP, 5.0, 2.0], 2) == [1.0, 5.0]
    assert str(gathered([GAP, GAP, 5.0, 2.0], 2)) == "[nan, 5.0]"
    assert len(gathered([1.0] * 500, 78)) <= 78


def test_what_was_never_other_than_0_takes_no_room_and_what_was_does():
    quiet = "\n".join(drawn(told([point(0, started=3), point(1, started=5)])))
    assert "started" in quiet
    assert not any(name in quiet for name in ("not well", "orphaned", "run time", "wait", "in flight"))
    queues = (QueueSample(queue="mail", depth=7, oldest_wait=12.5),)
    busy = "\n".join(drawn(told([point(0, started=3, timed_out=1, orphaned=1, run_time_p95=0.2, busy=4.0, slots=10.0, queues=queues)])))
    for name in ("not well", "orphaned", "run time, p95", "in flight in the fleet, of 10", "waiting in mail", "oldest wait in mail"):
        assert name in busy
    assert "highest 12.5 s" in busy


def test_deploys_stand_under_the_step_in_which_they_were_and_are_told_by_name():
    deploys = (Deploy(version="1.0", at=NOON + timedelta(seconds=90)), Deploy(version="2.0\x1b[31m", at=NOON + timedelta(minutes=4)))
    lines = drawn(told([point(n, started=1) for n in range(5)], deploys=deploys))
    at = lines.index("deploys")
    assert lines[at + 1] == "   ▲  ▲"
    assert lines[at + 2].endswith("1.0")
    assert lines[at + 3].endswith(r"2.0\x1b[31m")
    many = tuple(Deploy(version=f"v{number}", at=NOON) for number in range(30))
    assert sum("▲ " in line for line in drawn(told([point(0)], deploys=many))) == 8
    assert "  and 22 deploys before these" in drawn(told([point(0)], deploys=many))


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("glyphs", [BLOCKS, ASCII])
def test_charts_fit_whatever_the_width_and_ascii_is_ascii(width: int, glyphs: Glyphs):
    points = [point(n, is_gap=n == 7, started=n, run_time_p95=n / 7, busy=n, slots=99.0) for n in range(360)]
    lines = drawn(told(points, deploys=(Deploy(version="1.0", at=NOON),)), width=width, glyphs=glyphs)
    charts = [line for line in lines if line.startswith("  ") and not line.startswith(("  ▲ ", "  ^ ", "  · n", "  ? n"))]
    assert max(map(len, charts)) <= width
    assert glyphs is BLOCKS or all(line.isascii() for line in lines)


async def _filled(client: redis.asyncio.Redis, namespace: str) -> int:
    """Leave the history of two functions, with a gap; returns the server's minute."""
    store = Store(Namespace(client, namespace))
    now = int((await client.time())[0]) // 60
    histogram = Histogram()
    histogram.add([100.0] * 20)
    record = pack(Span({"started": 20, "succeeded": 19, "failed": 1}, histogram, histogram))
    for minute in range(now - 40, now - 2):
        if minute % 10:
            await store.pack_minute(minute, {counted_name("send", "mail"): entry(minute % 60, record)})
            depths = [QueueDepth(queue="mail", library="arq", depth=7, due=1, oldest_wait=2.0)]
            await store.redis.hset(keys.samples(str(minute // 60)), f"{minute % 60}:arq", sample_of(2, 10, depths, instances=1, orphans=0))
    await store.redis.zadd(keys.SERIES, {counted_name("send", "mail"): now})
    await store.mark_deploy("2026-07-29.1", "{}")
    return now


async def test_on_a_terminal_it_is_charts_and_where_the_encoding_has_no_blocks_ascii(cli, redis_client, namespace):
    await _filled(redis_client, namespace)
    shown = await anyio.to_thread.run_sync(lambda: cli.on_terminal(80, "history", "send", "--since", "1h"))
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("send in namespace", "the last 1h, a column is 1m", "█", "·", "▲", "2026-07-29.1", "waiting in mail", "highest 7"):
        assert part in shown
    plain = await anyio.to_thread.run_sync(
        lambda: cli.on_terminal(80, "history", "--since", "1h", env={"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"})
    )
    assert plain.isascii()
    for part in ("#", "?", "^", "2026-07-29.1"):
        assert part in plain


async def test_without_a_terminal_it_is_a_table_of_steps(cli, redis_client, namespace):
    await _filled(redis_client, namespace)
    answer = await cli.within("history", "--since", "20m", "--step", "5m")
    lines = [line.split() for line in answer.out.splitlines() if line[:2] == "20"]
    assert answer.code == 0
    assert len(lines) == 5  # four steps, and the deploy
    assert {"80", "100"} & {line[2] for line in lines}  # with and without the minute that is missing
    assert "2026-07-29.1" in answer.out


def test_without_a_terminal_a_gap_is_one_line_however_long_it_is_and_0_is_no_gap():
    gaps = [point(n, is_gap=True) for n in range(69)]
    title, heading, *lines = step_lines(told([*gaps, point(69), point(70, is_gap=True), point(71, started=3)]), namespace="my_app")
    assert title == "all functions in namespace my_app: 72 steps of 1m, the last one is not over"
    moments = [point(n).at.astimezone().strftime("%Y-%m-%d %H:%M:%S") for n in (0, 69, 70, 71)]
    assert [line[:19] for line in lines] == moments
    assert lines[0][19:] == "  a gap of 69 steps: no instance was sweeping"
    assert lines[2][19:] == "  a gap of 1 step: no instance was sweeping"
    at = heading.index("STARTED")
    assert [lines[1][at:].split()[0], lines[3][at:].split()[0]] == ["0", "3"]
    assert [line[19:].strip() for line in step_lines(told(gaps), namespace="my_app")[2:]] == ["a gap of 69 steps: no instance was sweeping"]


async def test_the_document_is_what_the_question_returns(cli, redis_client, namespace):
    await _filled(redis_client, namespace)
    async with Tracker(namespace=namespace, redis=redis_client) as tracker:
        while True:
            before = await tracker.history("send", since=3_600, step=300)
            document = (await cli.within("history", "send", "--since", "1h", "--step", "5m", "--json")).document
            if (await tracker.history("send", since=3_600, step=300)).points[0].at == before.points[0].at:
                break  # the minute has not changed meanwhile
    assert document["history"] == before.to_dict()


@pytest.mark.parametrize("arguments", [["--since", "31d"], ["--since", "soon"], ["--step", "90s"], ["--since", "7d", "--step", "1m"]])
async def test_what_is_not_kept_ends_with_2_and_says_what_to_write(cli, arguments: list[str]):
    answer = await cli.within("history", *arguments)
    assert answer.code == 2
    assert any(hint in answer.err for hint in ("write ", "hours for 30 days"))


async def test_of_a_function_that_has_not_run_that_is_said(cli):
    answer = await cli.within("history", "nobody")
    assert answer.code == 0
    assert "no run of nobody has started in this time" in answer.err
