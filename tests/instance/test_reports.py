"""What jobs report fails no job and costs no other one its record, whatever it is."""

import decimal
import enum
import fractions
import json
import logging

import pytest

from async_tracker.instance import runs
from async_tracker.instance.runs import shown_args
from async_tracker.policy import Limits
from async_tracker.store.instance_record import Description, decode_instance, encode_description
from async_tracker.store.run_record import RunRecord, decode_run, encode_run
from tests.harness.wait import wait_until


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__

    def __float__(self) -> float:
        raise RuntimeError("no")


class Half:
    """A number as numpy has them: no float, and one can be made of it."""

    def __float__(self) -> float:
        return 0.5


class Weird(float):
    def __le__(self, other: object) -> bool:
        raise RuntimeError("no")

    __ge__ = __lt__ = __gt__ = __le__


class Colour(enum.StrEnum):
    BLUE = "blue"


@pytest.fixture(autouse=True)
def complaints(monkeypatch, caplog):
    monkeypatch.setattr(runs, "_complained_of", set())
    caplog.set_level(logging.WARNING, logger="async_tracker")
    return lambda: [line for line in caplog.messages if "the job runs on" in line]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (1.0000000000000002, 1.0),
        (sum([1 / 9] * 9), 1.0),
        (-1e-17, 0.0),
        (decimal.Decimal("0.5"), 0.5),
        (fractions.Fraction(1, 4), 0.25),
        (Half(), 0.5),
        (True, 1.0),
        (1.2, 1.0),
        (50, 1.0),
        (-3, 0.0),
        (10**400, None),
        (float("nan"), None),
        (decimal.Decimal("NaN"), None),
        (float("inf"), None),
        ("half", None),
        ("0.5", None),
        (b"0.5", None),
        (1j, None),
        ([0.5], None),
        (Unspeakable(), None),
        (Weird(0.5), 0.5),
        (None, None),
    ],
)
async def test_a_fraction_is_clamped_or_left_out_and_the_next_job_is_seen_all_the_same(tracker, given, kept):
    async with tracker.register(), tracker.track("odd", function="odd") as job:
        await job.progress(given)
        job.progress(given)

        async def is_seen():
            return await tracker.job("odd")

        found = await wait_until(is_seen, description="the run is written")
        assert found.progress == kept
        json.dumps(found.to_dict(), allow_nan=False)
        async with tracker.track("next"):
            await wait_until(lambda: tracker.job("next"), description="the next run is written")
        assert not tracker.is_behind


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("x" * 5_000_000, "x" * 200),
        (7, "7"),
        (b"caf\xc3\xa9", "café"),
        (Colour.BLUE, "blue"),
        ("half \ud800 a character", "half \ud800 a character"),
        ("line\nbreak \x1b[31m", "line\nbreak \x1b[31m"),
        (Unspeakable(), None),
    ],
)
async def test_a_message_becomes_text_or_is_left_out(tracker, given, kept):
    async with tracker.register(), tracker.track("odd") as job:
        await job.progress(0.5, given)
        found = await wait_until(lambda: tracker.job("odd"), description="the run is written")
        assert (found.progress, found.progress_message) == (0.5, kept)


async def test_what_is_wrong_with_a_report_is_logged_once_for_each_function(tracker, complaints):
    async with tracker.register():
        for function in ("send", "send", "pay"):
            async with tracker.track("42", function=function) as job:
                for _ in range(10):
                    job.progress("half")
                    job.progress(1.0000000000000002)
    assert [line.split(":")[0] for line in complaints()] == ["function 'send'", "function 'pay'"]


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("top secret")


async def forgotten(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("redact", "says"),
    [
        (lambda text: None, "redact returned None"),
        (lambda text: b"bytes", "redact returned bytes"),
        (lambda text: 7, "redact returned int"),
        (lambda text: text.nope, "AttributeError"),
        (lambda text: Colour.BLUE, "blue"),
        (lambda text: "x" * 1_000_000, "x" * 199 + "…"),
    ],
)
def test_a_redaction_that_goes_wrong_shows_nothing_and_raises_nothing(redact, says, complaints):
    shown = shown_args(("hunter2",), {}, redact)
    assert says in shown
    assert type(shown) is str
    assert "hunter2" not in shown + "".join(complaints())


def test_an_argument_that_cannot_be_shown_does_not_tell_why(complaints):
    assert "RuntimeError" in shown_args((Broken(),), {}, None)
    assert "secret" not in "".join(complaints())


ODD = [
    decimal.Decimal("0.5"),
    fractions.Fraction(1, 2),
    b"\xff",
    Unspeakable(),
    float("nan"),
    float("inf"),
    object(),
    [1],
    {"a": b""},
    10**5000,
]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "field",
    ["job_try", "function", "queue", "library", "enqueued_at_ms", "timeout", "progress", "progress_message", "args", "superseded", "hold"],
)
def test_one_bad_value_costs_its_field_and_nothing_else(field, odd):
    record = RunRecord(**{"job_id": "42", "instance_id": "w", "token": "r", "started_at_ms": 5, field: odd})
    read = decode_run("job:42", "42", encode_run(record))
    assert (read.instance_id, read.token, read.started_at_ms) == ("w", "r", 5)
    json.loads(encode_run(record), parse_constant=pytest.fail)


@pytest.mark.parametrize("odd", ODD, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("field", ["functions", "tags", "queues", "versions", "concurrency", "queue", "label"])
def test_one_bad_value_does_not_keep_an_instance_from_being_known(field, odd):
    many = {"functions": ("send", odd), "tags": (odd, "blue"), "queues": ("mail", odd), "versions": {"python": odd}}
    description = Description(**{"library": "arq", "host": "h", "host_id": "i", "pid": 1, field: many.get(field, odd)})
    fields = {name: str(value) for name, value in encode_description(description, Limits()).items()}
    assert decode_instance("instance:w", "w", {**fields, "started_at_ms": "5"}).description.pid == 1


async def test_ids_and_names_that_an_integration_hands_over_are_made_text(tracker):
    async with tracker.register():
        run = tracker._runtimes.asked.start_run(7, function=["send"], queue=Unspeakable(), due_at_ms="soon")
        found = await wait_until(lambda: tracker.job("7"), description="the run is written")
        assert (found.function, found.queue) == ("['send']", None)
        tracker._runtimes.asked.finish_run(run, "succeeded")
    assert (await tracker.stats("['send']")).succeeded == 1
