"""How long the jobs of killed workers waited until another ran them, by the ledger."""

import itertools
from collections.abc import Sequence

from tests.harness.ledger import Account


def waits(account: Account) -> list[float]:
    """Give, for each job that was killed, the seconds from its first kill until it ran again, in ascending order.

    Later kills of the same job are left out: those are put off on purpose.
    """
    found = []
    for job_id in {run.job_id for run in account.runs}:
        runs = account.runs_of(job_id)
        for killed, again in itertools.pairwise(runs):
            if killed.outcome is None and killed.ended_at_ns is not None:
                found.append((again.started_at_ns - killed.ended_at_ns) / 1e9)
                break
    return sorted(found)


def quantile(ascending: Sequence[float], share: float) -> float:
    """Give the value that so large a share of these does not exceed.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    return ascending[max(0, -(-int(len(ascending) * share * 1_000) // 1_000) - 1)]


def summary(ascending: Sequence[float]) -> str:
    """Say it in a line."""
    if not ascending:
        return "no job was killed and ran again"
    p50, p99 = quantile(ascending, 0.5), quantile(ascending, 0.99)
    return f"{len(ascending)} jobs ran again after p50 {p50:.2f} s, p99 {p99:.2f} s, at most {ascending[-1]:.2f} s"
