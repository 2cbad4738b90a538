"""Where dramatiq's Redis broker notes that a process has a message, and how that is written into our records.

A broker adds the id of every message that it fetches to a set of its own, and takes it out when the message is acknowledged. The
set's name carries the broker's id, which is made anew in every process: it is the name on the claim.
"""

import json
from dataclasses import dataclass
from typing import Any

from async_tracker.integrations.dramatiq.names import DELAYED, acks_key, messages_key, queue_key
from async_tracker.store.instance_record import Description

_ACKS = ":__acks__."


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A Redis broker, as an instance describes it."""

    broker_id: str
    namespace: str
    at: str = ""
    """Its Redis, as a url without a password."""

    def encode(self) -> str:
        """Write it into `Description.broker`.

        >>> Broker.of(Broker(broker_id="5f", namespace="dramatiq").encode())
        Broker(broker_id='5f', namespace='dramatiq', at='')
        """
        return json.dumps({"redis": {"broker_id": self.broker_id, "namespace": self.namespace, "at": self.at}}, separators=(",", ":"))

    @classmethod
    def of(cls, text: str | None) -> "Broker | None":
        """Read it; None for any other broker."""
        try:
            stored: Any = json.loads(text or "{}")["redis"]
            return cls(broker_id=str(stored["broker_id"]), namespace=str(stored["namespace"]), at=str(stored["at"]))
        except (ValueError, KeyError, TypeError):
            return None

    def hold(self, queue: str, redis_message_id: str) -> "Hold":
        """Give the hold of this broker on a message of a queue."""
        return Hold(acks=acks_key(self.namespace, self.broker_id, queue), redis_message_id=redis_message_id)


def other_broker(kind: str) -> str:
    """Write into `Description.broker`, for people, that there is nothing to recover.

    >>> other_broker("RabbitmqBroker")
    'RabbitmqBroker, which gives back itself what a dead worker held'
    >>> Broker.of(other_broker("RabbitmqBroker")) is None
    True
    """
    return f"{kind}, which gives back itself what a dead worker held"


def queues_of(description: Description) -> list[str]:
    """Give every queue that an instance fetches from, its delay queues included."""
    return [name for queue in description.queues for name in (queue, queue + DELAYED)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One message in the set of one broker and queue."""

    acks: str
    redis_message_id: str

    def encode(self) -> str:
        """Write it into a record.

        >>> Hold.of(Hold(acks="dramatiq:__acks__.5f.default", redis_message_id="m").encode()).messages("default")
        'dramatiq:default.msgs'
        """
        return f"{self.acks} {self.redis_message_id}"

    @classmethod
    def of(cls, text: str) -> "Hold":
        """Read it."""
        acks, _, redis_message_id = text.rpartition(" ")
        return cls(acks=acks, redis_message_id=redis_message_id)

    @property
    def namespace(self) -> str:
        """What dramatiq's keys begin with."""
        return self.acks.partition(_ACKS)[0]

    def queue(self, name: str) -> str:
        """Name the list of a queue."""
        return queue_key(self.namespace, name)

    def messages(self, name: str) -> str:
        """Name the hash of a queue's messages."""
        return messages_key(self.namespace, name)
