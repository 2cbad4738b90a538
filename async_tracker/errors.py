"""Everything that this library raises.

    TrackerError
     ├── ConfigError (also a ValueError)      a setting is wrong; the text says what to write
     │    └── WrongArgument (also a TypeError)   an argument of a call is
     ├── StorageError                         Redis did not do what was asked
     │    ├── StorageUnavailable              it could not be reached, or not in time
     │    └── CorruptRecord                   it holds something that this version cannot read
     ├── LeaseLost                            what was held was given to another worker
     ├── OrderFailed                          an order to a worker came to nothing; it has the answer
     ├── UnsupportedControl                   a worker library cannot do what an order asks of its worker
     └── UnsupportedCommand                   the Namespace proxy cannot confine this command

redis-py's own exceptions pass through the Namespace proxy unchanged; everywhere else they are translated into these,
with the cause attached.
"""


class TrackerError(Exception):
    """The common base: ``except TrackerError`` catches all that this library raises on purpose."""


class ConfigError(TrackerError, ValueError):
    """A setting cannot work; raised at construction, and the text says what to write instead."""


class WrongArgument(ConfigError, TypeError):
    """An argument of a call is of a kind, or has a value, with which it cannot work; the text says what to write instead."""


class StorageError(TrackerError):
    """Redis refused a command of the tracker; the driver's exception is the ``__cause__``."""


class StorageUnavailable(StorageError):
    """Redis could not be reached, or did not answer in time."""


class CorruptRecord(StorageError):
    """A key of the namespace holds what this version cannot read. ``key`` names it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key!r} holds no record that this version can read: {reason}")
        self.key = key
        self.reason = reason


class LeaseLost(TrackerError):
    """The run, or the sweep, is no longer ours: another worker has it."""


class UnsupportedControl(TrackerError):
    """What an order asks of a worker, its library cannot do, or not in the way in which the worker runs. Nothing was done."""


class OrderFailed(TrackerError):
    """A worker did not do what it was asked, or did not answer; the text says why. ``outcome`` is an `OrderOutcome`."""

    def __init__(self, text: str, outcome: str) -> None:
        super().__init__(text)
        self.outcome = outcome


class UnsupportedCommand(TrackerError):
    """The Namespace proxy does not let this command through, because it cannot confine it. Nothing was sent."""
