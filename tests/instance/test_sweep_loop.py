"""One turn of the loop that sweeps: whose turn it is, and whether there is anything to look for."""

import pytest

from async_tracker.config import Settings
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.sweep_loop import SweepLoop, Turn
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.recovery.lease import LeaseHolder, lease_holder, make_lease
from async_tracker.recovery.sweeper import make_sweeper
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections

DESCRIPTION = Description(library="asyncio", host="h", host_id="0f", pid=7)


@pytest.fixture
def store(redis_client, namespace) -> Store:
    return Store(Namespace(redis_client, namespace))


@pytest.fixture
async def here(redis_client) -> Connections:
    """A connection that is there."""
    info = await redis_client.info("server")
    return Connections(server=info["run_id"], ids={await redis_client.client_id(): ""})


def loop_of(store: Store) -> SweepLoop:
    sweeper = make_sweeper(Settings(namespace="any"), store, None, library="asyncio", on_event=lambda event: None)
    lease = make_lease(store, library="asyncio", recovers=False, sweep_interval=0.5)
    return SweepLoop(sweeper=sweeper, lease=lease, holder=lambda: None, alarms=Alarms(), sweep_interval=0.5)


async def register(store: Store, name: str, connections: Connections) -> LeaseHolder:
    await store.register(name, 1, connections.encode(), {**encode_description(DESCRIPTION, Limits()), "state": "alive"})
    return lease_holder(name, connections)


async def test_who_does_not_hold_the_lease_does_not_sweep(store, here):
    one, other = [await register(store, name, here) for name in ("one", "other")]
    assert (await loop_of(store).step(one, before=Turn())).swept is not None
    assert await loop_of(store).step(other, before=Turn()) == Turn(instances=2)


async def test_an_instance_that_is_alone_sweeps_once_in_ten_turns_and_at_once_when_another_comes(store, here):
    loop, holder = loop_of(store), await register(store, "one", here)
    turns = [await loop.step(holder, before=Turn())]
    for _ in range(21):
        turns.append(await loop.step(holder, before=turns[-1]))
    assert [number for number, turn in enumerate(turns) if turn.swept is not None] == [0, 10, 20]
    assert all(turn.is_sweeper for turn in turns)
    await register(store, "other", here)
    assert (await loop.step(holder, before=turns[-1])).swept is not None
