"""What a forked child must let go of at once, because it belongs to its parent: connections, timers, tokens."""

import os
import weakref
from contextlib import ExitStack
from typing import Protocol


class Inherited(Protocol):
    """An object of the parent process that a forked child must not go on using."""

    def forget_in_child(self) -> None:
        """Let go of what is the parent's, without changing it for the parent."""


_inherited: "weakref.WeakSet[Inherited]" = weakref.WeakSet()


def on_fork(inherited: Inherited) -> None:
    """Call ``inherited.forget_in_child()`` in every child that is forked from here on, as long as the object lives."""
    _inherited.add(inherited)


def _after_fork_in_child() -> None:
    with ExitStack() as all_of_them:  # one that fails keeps no other from being called
        for inherited in list(_inherited):
            all_of_them.callback(inherited.forget_in_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
