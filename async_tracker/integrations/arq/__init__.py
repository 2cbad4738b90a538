"""arq workers: hooks, the fence in arq's own claim, and how a dead worker's claims are given back."""

from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.integrations.arq.hooks import ArqHooks
from async_tracker.integrations.arq.install import installed

__all__ = ["ArqAdapter", "ArqHooks", "installed"]
