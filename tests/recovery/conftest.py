"""What the dead held, as arq has it: its pool, the queue of the test, and a tracker that only asks."""

from tests.integrations.arq.conftest import observer, pool, queue

__all__ = ["observer", "pool", "queue"]
