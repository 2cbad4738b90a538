"""The keys of dramatiq's Redis broker, as it writes them. Nothing of dramatiq is imported to know them."""

LIBRARY = "dramatiq"

DELAYED = ".DQ"
"""What the name of a queue's delay queue ends with."""


def acks_key(namespace: str, broker_id: str, queue: str) -> str:
    """Name the set of message ids that a broker has fetched from a queue and not acknowledged.

    >>> acks_key("dramatiq", "5f", "default.DQ")
    'dramatiq:__acks__.5f.default.DQ'
    """
    return f"{namespace}:__acks__.{broker_id}.{queue}"


def queue_key(namespace: str, queue: str) -> str:
    """Name the list of message ids that wait in a queue."""
    return f"{namespace}:{queue}"


def messages_key(namespace: str, queue: str) -> str:
    """Name the hash of the messages of a queue, waiting or fetched."""
    return f"{namespace}:{queue}.msgs"


def dead_letters_key(namespace: str, queue: str) -> str:
    """Name the sorted set of the dead letters of a queue, each with when it became one, in ms.

    >>> dead_letters_key("dramatiq", "default.DQ")
    'dramatiq:default.XQ'
    """
    return f"{namespace}:{queue.removesuffix(DELAYED)}.XQ"


def heartbeats_key(namespace: str) -> str:
    """Name the sorted set of the brokers that have spoken, each with when, in ms."""
    return f"{namespace}:__heartbeats__"


DUE_AT = "async_tracker_due_at"
"""The option of a message that was delayed: when it was due, in ms."""
