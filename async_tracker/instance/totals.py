"""By how much the counters of all time have grown, in numbered batches that Redis adds one after the other, each once.

Redis keeps the number of the newest batch of an instance, and nothing else of what the instance has counted. Each beat is answered with
it: a server that has lost its newest writes answers with an older one, and is sent what came after that again, as it was.
"""

import itertools
import logging
from collections import Counter

from async_tracker.instance.journal import Journal
from async_tracker.store.counters import COUNTERS_IN_A_BATCH, TotalsBatch, counters_in_parts

logger = logging.getLogger("async_tracker")

COUNTERS_REMEMBERED = 20_000
"""How many counters of batches that Redis has are kept apart, for a server that loses them: some 25 minutes of 20 functions that all run
between any two beats, some 1.5 MB at most."""

_COST_OF_A_BATCH = 4
"""As many counters' worth of memory is a batch without any."""

_LOST = "what was counted just before this instance was declared dead is left out of the totals: Redis may have added it already"


class Totals:
    """The batches of one instance, as a chain: each names the one before it. Used in its event loop, and at the very end of its process.

    >>> totals = Totals(journal=Journal(wake=lambda: None))
    >>> totals.take()
    []
    """

    def __init__(self, *, journal: Journal) -> None:
        self._journal = journal
        self._numbers = itertools.count(1)
        self._made_anew = range(0)
        """The numbers of the batches that tell everything once more, to a server that had nothing."""
        self._before = Counter[str]()
        """What was counted in all batches before the chain."""
        self._base = 0
        """The number of the batch before the chain, 0 for none."""
        self._known: list[TotalsBatch] = []
        """The beginning of the chain: what Redis is known to have."""
        self._pending: list[TotalsBatch] = []
        """The rest of the chain."""
        self._in_doubt: int | None = None
        """The number of the one that was sent and not answered."""

    def take(self, *, at_the_end: bool = False) -> list[TotalsBatch]:
        """Give what Redis is not known to have, in the order in which it must be sent. What is new waits for what is older, and merges
        meanwhile: so an outage costs memory by functions and not by its length. ``at_the_end`` of the process nothing waits."""
        if at_the_end or not self._pending:
            for grown in counters_in_parts(self._journal.take_new_totals(), size=COUNTERS_IN_A_BATCH):
                self._pending.append(TotalsBatch(number=next(self._numbers), after=self._newest, grown=grown))
        return self.pending

    @property
    def pending(self) -> list[TotalsBatch]:
        """The batches that are made and that Redis is not known to have."""
        return list(self._pending)

    @property
    def _newest(self) -> int:
        chain = self._pending or self._known
        return chain[-1].number if chain else self._base

    def is_sent(self, batch: TotalsBatch | None) -> None:
        """Note that a batch is about to be sent, which may arrive though no answer comes."""
        if batch is not None:
            self._in_doubt = batch.number

    def heard(self, newest: int) -> None:
        """Take an answer of Redis, which says which batch is the newest that it has, 0 for none.

        Numbers only grow, so it has nothing of the batches with a higher one. Whatever of the others it may lack is left out, where it is
        not known exactly.
        """
        self._in_doubt = None
        chain = [*self._known, *self._pending]
        if newest == 0 and (self._known or self._base):
            self._begin_anew(chain)
        elif newest == self._base or newest in [batch.number for batch in chain]:
            self._split(chain, sum(batch.number <= newest for batch in chain))
        else:
            was_there_before = newest < self._made_anew.start  # the server was thought to be lost, and has what is told once more
            later = [batch for batch in chain if batch.number > newest and not (was_there_before and batch.number in self._made_anew)]
            self._forget([batch for batch in chain if batch not in later])
            self._follow(newest, later)

    def _split(self, chain: list[TotalsBatch], known: int) -> None:
        self._known, self._pending = chain[:known], chain[known:]
        size = sum(map(_size, self._known))
        length = 0
        while size > COUNTERS_REMEMBERED:
            size -= _size(self._known[length])
            length += 1
        if length:
            self._base = self._known[length - 1].number
            self._forget(self._known[:length])
            del self._known[:length]

    def _forget(self, batches: list[TotalsBatch]) -> None:
        for batch in batches:
            self._before.update(batch.grown)

    def _begin_anew(self, chain: list[TotalsBatch]) -> None:
        """The server has nothing of this instance: all that was ever counted under its id is to be sent."""
        self._forget(chain)
        counted = {name: total for name, total in self._before.items() if total}
        self._before.clear()
        parts = [
            TotalsBatch(number=next(self._numbers), after=0, grown=grown) for grown in counters_in_parts(counted, size=COUNTERS_IN_A_BATCH)
        ]
        self._made_anew = range(parts[0].number, parts[-1].number + 1) if parts else range(0)
        self._follow(0, parts)

    def _follow(self, newest: int, batches: list[TotalsBatch]) -> None:
        """Have these batches sent, in this order, after the newest that the server has."""
        self._base, self._known, self._pending = newest, [], []
        for batch in batches:
            self._pending.append(TotalsBatch(number=batch.number, after=self._newest, grown=batch.grown))

    def leave_behind(self) -> None:
        """Another instance id reports from here on: what the old one may have counted already must not be counted twice."""
        if self._in_doubt is not None:
            logger.warning(_LOST)
        unsent = [batch for batch in self._pending if batch.number != self._in_doubt]
        self._before.clear()
        self._in_doubt = None
        self._made_anew = range(0)
        self._follow(0, unsent)


def _size(batch: TotalsBatch) -> int:
    return len(batch.grown) + _COST_OF_A_BATCH
