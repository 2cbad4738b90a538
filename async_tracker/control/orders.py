"""What can be asked of an instance, how an order stands in its hash, and how it is answered: pure.

An order is one line in the field ``orders`` of ``instance:{id}``: its id, until when it is open in ms of the server's clock, and JSON.
The instance finds it in the reply to a beat, a write or its watchdog's word, and answers in ``answer:{order}``.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from async_tracker.records import Answer, OrderOutcome

BEYOND_SECONDS = 2.0
"""How long beyond its own heartbeat interval an instance is given to answer, by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person asks of one instance."""

    order_id: str
    kind: str
    by: str
    """Who asks: user and host, or the user of the page."""
    until_ms: int = 0
    """Until when it may be begun, on the server's clock; 0 in what is not handed over yet."""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an order, as the handler that carried it out says."""

    outcome: OrderOutcome = OrderOutcome.DONE
    says: str = ""
    """For people, one line."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """For programs, JSON-ready."""


def encode_order(order: Order) -> str:
    """Write the JSON of an order; the script puts its id and its end in front.

    >>> encode_order(Order(order_id="5f", kind="quiet", by="ann@web-1", arguments={"cron": False}))
    '{"kind":"quiet","by":"ann@web-1","arguments":{"cron":false}}'
    """
    return json.dumps({"kind": order.kind, "by": order.by, "arguments": dict(order.arguments)}, separators=(",", ":"))


def decode_orders(lines: str) -> Iterator[Order]:
    r"""Read the orders that an instance was handed; what cannot be read is left to the caller who takes it back.

    >>> [order.kind for order in decode_orders('5f 1700 {"kind":"quiet","by":"ann@web-1","arguments":{}}\n60 x {}\n61 7 []')]
    ['quiet']
    """
    for line in lines.split("\n"):
        order_id, _, rest = line.partition(" ")
        until_ms, _, stored = rest.partition(" ")
        try:
            facts = json.loads(stored)
            yield Order(
                order_id=order_id,
                kind=str(facts["kind"]),
                by=str(facts["by"]),
                until_ms=int(until_ms),
                arguments=dict(facts["arguments"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


def encode_answer(instance_id: str, done: Done) -> str:
    """Write what came of an order, and the id that the instance goes by."""
    facts = {"instance_id": instance_id, "outcome": done.outcome, "says": done.says, "details": dict(done.details)}
    return json.dumps(facts, separators=(",", ":"))


def decode_answer(stored: str, *, kind: str) -> Answer:
    """Read the answer to an order of this kind.

    >>> decode_answer(encode_answer("w:1:ab", Done(says="takes no more jobs")), kind="quiet").outcome
    <OrderOutcome.DONE: 'done'>
    """
    try:
        facts = json.loads(stored)
        return Answer(
            order=kind,
            instance_id=str(facts["instance_id"]),
            outcome=OrderOutcome(facts["outcome"]),
            says=str(facts["says"]),
            details=dict(facts["details"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        return Answer(order=kind, instance_id="?", outcome=OrderOutcome.FAILED, says=f"its answer cannot be read: {exc!r:.100}")


def event_facts(kind: str, by: str, answer_of: str, done: Done) -> dict[str, Any]:
    """Give the facts of the event that an order is: who asked what of which instance, and what came of it.

    >>> event_facts("quiet", "ann@web-1", "w:1:ab", Done(says="takes no more jobs"))["outcome"]
    'done'
    """
    return {"instance_id": answer_of, "order": kind, "by": by, "outcome": str(done.outcome), "says": done.says}
