"""A dramatiq worker that is given the conformance jobs."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO

from async_tracker.integrations.dramatiq import TrackerMiddleware
from tests.integrations.conformance import jobs

broker = RedisBroker(url=jobs.URL)
broker.add_middleware(AsyncIO())
broker.add_middleware(TrackerMiddleware(jobs.make_tracker()))
dramatiq.set_broker(broker)

hold = dramatiq.actor(broker=broker)(jobs.hold)
fail = dramatiq.actor(broker=broker, max_retries=0)(jobs.fail)
die = dramatiq.actor(broker=broker)(jobs.die)
