"""The terminal while the live view has it: its other screen, its keys as they are pressed, its size; and all as it was afterwards."""

import asyncio
import codecs
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from async_tracker.cli.top.state import keys_in

_ENDS = (signal.SIGTERM, signal.SIGHUP)
"""They end the view as q does, so that the terminal is given back."""

_ESCAPE_SECONDS = 0.05
"""How long a lone ESC may be the beginning of a longer sequence, as over a slow line."""


class Terminal:
    """The terminal of this process. Used in an event loop, as a context."""

    def __init__(self, *, on_keys: Callable[[Sequence[str]], None], on_resize: Callable[[], None], on_end: Callable[[], None]) -> None:
        """``on_keys`` is given the names of the keys that were pressed; ``on_resize`` is called when the terminal has another size, and
        ``on_end`` when the process is asked to end, or the terminal is gone.
        """
        self.console = Console(highlight=False)
        self._on_keys = on_keys
        self._on_resize = on_resize
        self._on_end = on_end
        self._live = Live(console=self.console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._descriptor = sys.stdin.fileno()
        self._mode = termios.tcgetattr(self._descriptor)
        self._loop = asyncio.get_running_loop()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._typed = ""
        self._escape: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._handlers = {signal.SIGWINCH: self._on_resize, signal.SIGTSTP: self._suspend, **dict.fromkeys(_ENDS, self._on_end)}
        for number, handle in self._handlers.items():
            self._loop.add_signal_handler(number, handle)
        self._take()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._give_back()
        for number in self._handlers:
            self._loop.remove_signal_handler(number)

    def draw(self, lines: Sequence[Text]) -> None:
        """Show these lines."""
        self._live.update(Group(*lines), refresh=True)

    def _take(self) -> None:
        tty.setcbreak(self._descriptor, termios.TCSADRAIN)
        self._loop.add_reader(self._descriptor, self._read)
        self._live.start()

    def _give_back(self) -> None:
        if self._escape is not None:
            self._escape.cancel()
        self._loop.remove_reader(self._descriptor)
        try:
            self._live.stop()
        finally:
            with suppress(termios.error):  # of a terminal that is gone there is nothing to give back
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._mode)

    def _suspend(self) -> None:
        """Ctrl-Z: the shell has its terminal back until the process is continued."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self._on_resize()

    def _read(self) -> None:
        try:
            raw = os.read(self._descriptor, 4_096)
        except OSError:
            raw = b""
        if not raw:  # the terminal is gone
            self._loop.remove_reader(self._descriptor)
            self._on_end()
            return
        self._typed += self._decoder.decode(raw)
        if self._escape is not None:
            self._escape.cancel()
            self._escape = None
        if _may_go_on(self._typed):
            self._escape = self._loop.call_later(_ESCAPE_SECONDS, self._hand_on)
        else:
            self._hand_on()

    def _hand_on(self) -> None:
        typed, self._typed = self._typed, ""
        self._on_keys(list(keys_in(typed)))


def _may_go_on(typed: str) -> bool:
    """Tell whether the last key may not have arrived whole.

    >>> _may_go_on("a\\x1b"), _may_go_on("\\x1b["), _may_go_on("\\x1b[A"), _may_go_on("q")
    (True, True, False, False)
    """
    _, escape, rest = typed.rpartition("\x1b")
    return bool(escape) and (rest in ("", "O", "[") or (rest.startswith("[") and not any("@" <= letter <= "~" for letter in rest[1:])))
