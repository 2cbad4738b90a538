"""``metrics``: what Prometheus asks for, as a process of its own."""

import asyncio
import signal

from async_tracker.cli.endings import Ending
from async_tracker.cli.reach import make_tracker
from async_tracker.cli.target import Target
from async_tracker.cli.wording import remark, say, say_document
from async_tracker.metrics.prometheus import Collector, serving

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


async def metrics(target: Target, *, host: str, port: int, timeout: float, names_most: int) -> int:
    """Serve the metrics until SIGTERM or Ctrl-C."""
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    async with make_tracker(target, timeout=timeout) as tracker:
        with serving(Collector(tracker, timeout=timeout, names_most=names_most), host=host, port=port) as address:
            if target.as_json:
                say_document({"url": address, "namespace": tracker.namespace}, indented=False)
            else:
                say(f"The metrics of namespace {tracker.namespace}: {address}")
                if host in _LOOPBACK:
                    remark("Only this machine reaches them: --host 0.0.0.0 lets others in, and asks for no password.")
            await told_to_end.wait()
    return Ending.OK
