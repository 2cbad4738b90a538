"""What runs in the test's own process for a tracker: the one place at which tests go past what its users hold."""

from async_tracker import Tracker
from async_tracker.instance.runtime import Runtime


def has_runtime(tracker: Tracker) -> bool:
    """Tell whether an instance of this tracker runs in this process."""
    return tracker._runtime is not None and tracker._runtime.is_running


def runtime_of(tracker: Tracker) -> Runtime:
    """Give what runs for the tracker's instance; fails where none is registered."""
    runtime = tracker._runtime
    assert runtime is not None, "the tracker has no instance in this process"
    return runtime
