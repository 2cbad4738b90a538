"""How much a benchmark does: all of it, what matters most of it, a quick look, or one round to see that it lives."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Rounds are interleaved; ``jobs`` is what one worker does in one round after its ``warmup``.

    A worker is slower in its first quarter of a second, with us or without: so a full round warms up for longer than that.
    """

    name: str
    rounds: int
    warmup: int
    jobs: int
    slots: tuple[int, ...]
    paced_jobs: int
    imports: int
    runs_in_one_process: int
    runs_in_flight: int
    latencies_ms: tuple[int, ...]
    latency_rounds: int
    foreign_keys: int
    instances: tuple[int, ...]
    query_rounds: int
    stacks_jobs: int
    job_ms: tuple[float, ...]
    far_ms: tuple[float, ...]
    threads: tuple[int, ...]
    message_ms: tuple[float, ...]
    rates: tuple[float, ...]
    idle_seconds: float
    grid_rounds: int
    grid_seconds: float
    kills: int
    kills_of_sweepers: int
    """So many for each number of workers; and as many of any worker where there are more than three."""
    kills_in_fleets: int
    """So many for each fleet, with and without probes: the sweeper and another worker by turns."""
    recovering_workers: tuple[int, ...]
    recovering_fleets: tuple[int, ...]
    recovering_probed: tuple[bool, ...]
    """Whether those fleets are probed: without, with, or one of them."""
    fleet: tuple[int, ...]
    scale_seconds: float
    queue_ids: int
    hardships: bool
    """Whether live workers are stopped, blocked and lost as well, which takes minutes at default settings."""
    only_named_cells: bool = False
    """Of the grid of jobs only the cells that stand in `benchmarks.grid.NAMED`; else every length, distance, number of slots and rate."""
    seconds: float | None = None
    """How long each benchmark that is made of rounds may take; it makes fewer then. None: all of them."""


FULL = Size(
    name="full",
    rounds=40,
    warmup=1_000,
    jobs=2_500,
    slots=(10, 100),
    paced_jobs=400,
    imports=15,
    runs_in_one_process=1_000_000,
    runs_in_flight=2_000,
    latencies_ms=(0, 1, 10),
    latency_rounds=9,
    foreign_keys=1_000_000,
    instances=(1, 100, 1_000),
    query_rounds=15,
    stacks_jobs=1_000,
    job_ms=(0, 1, 3, 10, 30, 100, 1_000),
    far_ms=(0, 1),
    threads=(1, 8, 32),
    message_ms=(0, 1, 10, 100),
    rates=(5, 20, 100),
    idle_seconds=10.0,
    grid_rounds=6,
    grid_seconds=2.0,
    kills=100,
    kills_of_sweepers=30,
    kills_in_fleets=20,
    recovering_workers=(3, 12),
    recovering_fleets=(100, 1_000, 3_000),
    recovering_probed=(False, True),
    fleet=(10, 100, 1_000, 3_000),
    scale_seconds=10.0,
    queue_ids=1_000_000,
    hardships=True,
)

MIDDLE = replace(
    FULL,
    name="middle",
    rounds=12,
    slots=(10,),
    paced_jobs=150,
    runs_in_one_process=200_000,
    imports=7,
    latency_rounds=7,
    only_named_cells=True,
    idle_seconds=6.0,
    grid_seconds=1.5,
    kills=30,
    kills_of_sweepers=10,
    kills_in_fleets=6,
    recovering_fleets=(100, 1_000),
    fleet=(10, 100, 1_000),
    seconds=15 * 60.0,
)

QUICK = Size(
    name="quick",
    rounds=4,
    warmup=100,
    jobs=600,
    slots=(10,),
    paced_jobs=60,
    imports=3,
    runs_in_one_process=20_000,
    runs_in_flight=1_000,
    latencies_ms=(0, 1),
    latency_rounds=2,
    foreign_keys=50_000,
    instances=(1, 100),
    query_rounds=5,
    stacks_jobs=1_000,
    job_ms=(0, 10, 100),
    far_ms=(0, 1),
    threads=(8,),
    message_ms=(0, 10),
    rates=(20,),
    idle_seconds=5.0,
    grid_rounds=2,
    grid_seconds=1.0,
    kills=4,
    kills_of_sweepers=2,
    kills_in_fleets=2,
    recovering_workers=(3, 12),
    recovering_fleets=(100,),
    recovering_probed=(False, True),
    fleet=(10, 100),
    scale_seconds=3.0,
    queue_ids=20_000,
    hardships=False,
)

ONE_ROUND = Size(
    name="one round",
    rounds=1,
    warmup=10,
    jobs=40,
    slots=(10,),
    paced_jobs=5,
    imports=1,
    runs_in_one_process=500,
    runs_in_flight=100,
    latencies_ms=(1,),
    latency_rounds=1,
    foreign_keys=1_000,
    instances=(1, 10),
    query_rounds=1,
    stacks_jobs=20,
    job_ms=(10,),
    far_ms=(1,),
    threads=(2,),
    message_ms=(0,),
    rates=(100,),
    idle_seconds=0.2,
    grid_rounds=1,
    grid_seconds=0.1,
    kills=1,
    kills_of_sweepers=0,
    kills_in_fleets=1,
    recovering_workers=(3,),
    recovering_fleets=(8,),
    recovering_probed=(True,),
    fleet=(5,),
    scale_seconds=0.3,
    queue_ids=2_000,
    hardships=False,
)
