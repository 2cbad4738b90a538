"""The instances that one tracker has in this process: most often one, two where it serves two workers."""

from itertools import chain

from async_tracker.instance.runs import current
from async_tracker.instance.runtime import Runtime


class Runtimes:
    """The instances of one tracker in this process, from their composition until they have left."""

    def __init__(self) -> None:
        self._runtimes: list[Runtime] = []
        """The newest last."""

    def add(self, runtime: Runtime) -> None:
        """Take in an instance that was composed."""
        self._runtimes.append(runtime)

    def remove(self, runtime: Runtime) -> None:
        """Forget an instance that has left; does nothing where it is forgotten already."""
        if runtime in self._runtimes:
            self._runtimes.remove(runtime)

    @property
    def running(self) -> Runtime | None:
        """The oldest that runs; None where none does."""
        return next((runtime for runtime in self._runtimes if runtime.is_running), None)

    @property
    def asked(self) -> Runtime | None:
        """The instance that is meant where the tracker is asked about its own; None where there is none.

        Of several it is the one whose job asks, else the newest of this event loop, else the newest.
        """
        if len(self._runtimes) < 2:
            return next(iter(self._runtimes), None)
        newest = list(reversed(self._runtimes))
        run = current.get()
        of_the_job = (runtime for runtime in newest if run is not None and runtime.keeps(run))
        return next(chain(of_the_job, (runtime for runtime in newest if runtime.lives_here), newest), None)

    async def stop_here(self) -> None:
        """Stop those of this event loop, and forget all that do not run; those of other threads go on."""
        for runtime in list(self._runtimes):
            if runtime.is_here:
                await runtime.stop()
            if not runtime.is_running:
                self.remove(runtime)
