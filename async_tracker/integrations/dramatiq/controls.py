"""What a dramatiq worker can be told while it works: to fetch no more messages, to fetch again, to end."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from dramatiq.worker import ConsumerThread, Worker

from async_tracker.errors import UnsupportedControl


class DramatiqControls:
    """The controls of one worker. To be made in the thread that starts the worker: that tells whose process it is.

    Only its consumers are paused. dramatiq's own ``Worker.pause`` waits for every message in hand, and strands those that were
    prefetched. What was prefetched is run; what waits for its time in this process's memory goes back to its queue.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._master, self._processes = _master_above()
        self.is_quiet = False

    async def quiet(self, *, cron: bool) -> str:
        """Fetch nothing more; one fetch may be under way. dramatiq has no cron jobs of its own."""
        self.is_quiet = True
        for thread in list(self._worker.consumers.values()):
            self.pause(thread)
        return "it fetches no more messages, and runs those that it has"

    def pause(self, thread: ConsumerThread) -> None:
        """Pause one consumer. It leaves its loop once it finds nothing; with nothing to prefetch it finds nothing at once."""
        thread.pause()
        consumer: Any = thread.consumer
        if getattr(consumer, "prefetch", None) is not None:
            consumer.prefetch = 0

    def keep_quiet(self) -> None:
        """Pause what has begun to fetch meanwhile: a consumer of a new queue, or one that was in the middle of starting anew."""
        for thread in list(self._worker.consumers.values()):
            consumer: Any = thread.consumer
            if not thread.paused or getattr(consumer, "prefetch", None):
                self.pause(thread)

    async def resume(self) -> str:
        """Fetch again."""
        self.is_quiet = False
        for thread in list(self._worker.consumers.values()):
            consumer: Any = thread.consumer
            if getattr(consumer, "prefetch", None) is not None:
                consumer.prefetch = thread.prefetch
            thread.resume()
        return "it fetches messages again"

    def in_hand(self) -> int:
        """Count the messages that wait in this process for a thread; those that have one are in flight."""
        return self._worker.work_queue.qsize()

    async def stop(self, *, group: bool) -> str:
        """End the worker, or all processes of its master; a process of dramatiq's command line cannot end without the others."""
        if self._master is None:
            threading.Thread(target=self._worker.stop, name="async-tracker-stop", daemon=True).start()
            return "this worker ends when its messages are done; the process that runs it goes on"
        if self._processes > 1 and not group:
            raise UnsupportedControl(
                f"it is one of {self._processes} processes of a dramatiq master, which ends them all when one ends: write --group "
                "(group=True)"
            )
        if os.getppid() != self._master:
            raise UnsupportedControl("its dramatiq master is gone")
        os.kill(self._master, signal.SIGTERM)  # how dramatiq is told to end
        which = "its only process" if self._processes == 1 else f"all {self._processes} processes"
        return f"its dramatiq master (pid {self._master}) ends, and {which} when their messages are done"


def _master_above() -> tuple[int | None, int]:
    """Tell the pid of the dramatiq master, and how many processes it has, if its command line started the worker that boots here."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "worker_process" and frame.f_globals.get("__name__") == "dramatiq.cli":
            processes = getattr(frame.f_locals.get("args"), "processes", None)
            return os.getppid(), processes if isinstance(processes, int) else 1
        frame = frame.f_back
    return None, 1
