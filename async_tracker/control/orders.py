"""What can be asked of an instance, how an order stands in its hash, and how it is answered: pure.

An order is one line in the field ``orders`` of ``instance:{id}``: its id, until when it is open in ms of the server's clock, and JSON.
The instance finds it in the reply to a beat, a write or its watchdog's word, and answers in ``answer:{order}``.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from async_tracker.clock import from_ms
from async_tracker.records import Answer, OrderOutcome, StandingOrder
from async_tracker.store.instance_record import Description

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


EVERYWHERE = "*"
"""The scope of an order that stands for every instance."""


def scope_of(queue: str | None) -> str:
    """Give the scope of an order that stands for the workers of a queue, or for all.

    >>> scope_of("mail"), scope_of(None)
    ('queue:mail', '*')
    """
    return EVERYWHERE if queue is None else f"queue:{queue}"


def scopes_of(description: Description) -> list[str]:
    """Give the scopes of standing orders that an instance is in."""
    queues = dict.fromkeys((*description.queues, *([description.queue] if description.queue else [])))
    return [EVERYWHERE, *map(scope_of, queues)]


def standing_arguments(arguments: Mapping[str, Any], *, scope: str, until_ms: int | None = None) -> dict[str, Any]:
    """Give the arguments of an order that stands for a scope, and where it goes to one instance, until when: by that it ends there.

    >>> standing_arguments({"cron": True}, scope="queue:mail", until_ms=1700)
    {'cron': True, 'scope': 'queue:mail', 'until_ms': 1700}
    """
    return {**arguments, "scope": scope, **({} if until_ms is None else {"until_ms": until_ms})}


def scope_and_end(order: Order) -> tuple[str, float]:
    """Give the scope of an order that stands, and until when it does; '' and for ever for an order that was given to one instance.

    >>> scope_and_end(Order(order_id="5f", kind="quiet", by="ann", arguments={"scope": "*", "until_ms": 1700}))
    ('*', 1700.0)
    >>> scope_and_end(Order(order_id="5f", kind="quiet", by="ann"))
    ('', inf)
    """
    scope, until_ms = order.arguments.get("scope"), order.arguments.get("until_ms")
    if isinstance(scope, str) and isinstance(until_ms, int | float):
        return scope, float(until_ms)
    return "", math.inf


def standing_order(scope: str, line: str, *, now_ms: int) -> StandingOrder | None:
    """Read an order that stands; None for one that is over, or cannot be read.

    >>> line = '5f 1700000060000 {"kind":"quiet","by":"ann@web-1","arguments":{"cron":false}}'
    >>> order = standing_order("queue:mail", line, now_ms=1_700_000_000_000)
    >>> order.queue, order.order, order.by, order.left
    ('mail', 'quiet', 'ann@web-1', 60.0)
    >>> standing_order("*", line, now_ms=1_700_000_060_000) is None
    True
    """
    for order in decode_orders(line):
        if order.until_ms > now_ms:
            queue = None if scope == EVERYWHERE else scope.partition(":")[2]
            left = (order.until_ms - now_ms) / 1000.0
            arguments = {name: value for name, value in order.arguments.items() if name != "scope"}
            return StandingOrder(order=order.kind, queue=queue, by=order.by, until=from_ms(order.until_ms), left=left, arguments=arguments)
    return None


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


def event_facts(kind: str, by: str, answer_of: str | None, done: Done) -> dict[str, Any]:
    """Give the facts of the event that an order is: who asked what of which instance, and what came of it.

    >>> event_facts("quiet", "ann@web-1", "w:1:ab", Done(says="takes no more jobs"))["outcome"]
    'done'
    """
    return {"instance_id": answer_of, "order": kind, "by": by, "outcome": str(done.outcome), "says": done.says}
