"""An event comes back with everything that was said, and what is none is corrupt."""

import json

import pytest

from async_tracker.errors import CorruptRecord
from async_tracker.events.encoding import EVENT_TYPES, decode_event, encode_event


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_an_event_comes_back_as_it_was_told(event_type: str):
    raw = encode_event(event_type, job_id="ключ", instance_id="w", function=None, delay=1.5)
    event = decode_event("1700000000000-3", raw)
    assert (event.type, event.job_id, event.instance_id, event.function) == (event_type, "ключ", "w", None)
    assert (dict(event.details), event.event_id, event.at.timestamp()) == ({"delay": 1.5}, "1700000000000-3", 1_700_000_000.0)
    assert json.loads(json.dumps(event.to_dict()))["details"] == {"delay": 1.5}


@pytest.mark.parametrize("raw", ["", "7", "[]", "{}", '{"schema":2,"type":"recovered"}', b"\xff", '{"schema":1}'])
def test_what_is_no_event_is_corrupt(raw: str | bytes):
    with pytest.raises(CorruptRecord):
        decode_event("1-0", raw)


@pytest.mark.parametrize("event_id", ["", "soon", "-"])
def test_an_id_that_is_none_is_corrupt(event_id: str):
    with pytest.raises(CorruptRecord):
        decode_event(event_id, encode_event("recovered"))
