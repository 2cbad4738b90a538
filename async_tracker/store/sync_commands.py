"""The transitions that a thread sends on a synchronous connection: the same scripts as `Store` sends, one method each."""

import json
from collections.abc import Sequence
from typing import Any

from async_tracker.clock import ServerClock
from async_tracker.connections.calls import run_script_sync
from async_tracker.connections.replies import Argument, text
from async_tracker.store import keys
from async_tracker.store.counters import CountedBatch
from async_tracker.store.run_record import RunRecord
from async_tracker.store.scripts import CHANGED_SECONDS, SCRIPTS, answer_call, beat_call, checked, count_call, write_call
from async_tracker.store.writes import Beat, Reply, Status


class SyncStore:
    """The namespace for one thread. ``redis`` is a SyncNamespace proxy; every method raises StorageError when Redis refuses."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis

    def _run(self, name: str, names: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        status, now_ms, *orders = checked(name, run_script_sync(self.redis, SCRIPTS[name], names, arguments))
        return Reply(Status(int(status)), int(now_ms), text(orders[0]) if orders else "")

    def speak(self, instance_id: str, sequence: int, connections: str, *, stack: Sequence[str], silent_ms: int) -> Reply:
        """Say that the process lives although its event loop does not run, and which line blocks it."""
        names = [keys.INSTANCES, keys.instance(instance_id), keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS, keys.CHANGED]
        return self._run("speak", names, (instance_id, sequence, connections, json.dumps(list(stack)), silent_ms, CHANGED_SECONDS))

    def beat(self, instance_id: str, beat: Beat) -> Reply:
        """Renew the heartbeat, and what it carries."""
        names, arguments = beat_call(instance_id, beat)
        return self._run("beat", names, arguments)

    def count(self, instance_id: str, batch: CountedBatch, *, clock: ServerClock) -> Reply:
        """Add a numbered batch to the minute in which it arrives."""
        names, arguments = count_call(instance_id, batch, now_ms=clock.now_ms(), since_ms=clock.at_ms(batch.since_ms))
        return self._run("count", names, arguments)

    def write(self, instance_id: str, sequence: int, *, started: Sequence[RunRecord]) -> Reply:
        """Write runs that have started."""
        names, arguments = write_call(instance_id, sequence, started=started, ended=[])
        return self._run("write", names, arguments)

    def answer(self, instance_id: str, order_id: str, answer: str, event: str) -> str:
        """Answer an order. Returns '' when this answer stands, else the one that stood before."""
        names, arguments = answer_call(instance_id, order_id, answer, event)
        return text(checked("answer", run_script_sync(self.redis, SCRIPTS["answer"], names, arguments)))
