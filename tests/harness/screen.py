"""A program on a terminal: what it writes is drawn as a terminal draws it, and what a person types reaches it."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

_SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78]")
_PARTIAL = re.compile(r"\x1b(\[[?0-9;]*)?$")


class Screen:
    """What a terminal of this size shows: characters, the cursor, the other screen. Colours are noted, and not drawn."""

    def __init__(self, width: int, height: int) -> None:
        self.is_alternate = False
        self.hides_cursor = False
        self.colours: set[str] = set()
        self._rest = ""
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Take another size; what was shown goes, as a terminal may do as well."""
        self.width, self.height = width, height
        self._clear()

    def _clear(self) -> None:
        self._cells = [[" "] * self.width for _ in range(self.height)]
        self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        """What each line shows, without the blanks at its end."""
        return ["".join(row).rstrip() for row in self._cells]

    def feed(self, written: str) -> None:
        """Draw what a program has written."""
        text, at = self._rest + written, 0
        partial = _PARTIAL.search(text)
        self._rest = text[partial.start() :] if partial is not None else ""
        text = text[: len(text) - len(self._rest)]
        while at < len(text):
            found = _SEQUENCE.match(text, at)
            if found is not None:
                self._obey(found[1] or "", found[2] or "")
                at = found.end()
            else:
                self._put(text[at])
                at += 1

    def _obey(self, numbers: str, letter: str) -> None:
        if letter == "m":
            self.colours |= {number for number in numbers.split(";") if number and number not in ("0", "1", "2", "7")}
        elif letter in "hl" and numbers == "?1049":
            self.is_alternate = letter == "h"
            self._clear()
        elif letter in "hl" and numbers == "?25":
            self.hides_cursor = letter == "l"
        elif letter == "H":
            row, _, column = numbers.partition(";")
            self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
        elif letter == "J" and numbers == "2":
            self._clear()

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
        elif letter == "\n":
            self._go_down()
        elif letter.isprintable():
            if self._column == self.width:
                self._column = 0
                self._go_down()
            self._cells[self._row][self._column] = letter
            self._column += 1

    def _go_down(self) -> None:
        if self._row + 1 < self.height:
            self._row += 1
        else:
            self._cells = [*self._cells[1:], [" "] * self.width]


class ProgramOnTerminal:
    """A process with a terminal of its own, as a context that ends it."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], width: int = 80, height: int = 24) -> None:
        self.screen = Screen(width, height)
        self._ours, self._theirs = os.openpty()
        self._set_size()
        self.mode_before = termios.tcgetattr(self._theirs)
        os.set_blocking(self._ours, False)
        self.process = subprocess.Popen(
            command,
            env={**env, "TERM": "xterm-256color"},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def _set_size(self) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", self.screen.height, self.screen.width, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        os.close(self._ours)

    def type(self, typed: str) -> None:
        """Type this, as a person would."""
        os.write(self._ours, typed.encode())

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size; the program is told."""
        self.screen.resize(width, height)
        self._set_size()
        os.kill(self.process.pid, signal.SIGWINCH)

    def look(self) -> list[str]:
        """Give the lines that are shown by now."""
        while True:
            try:
                written = os.read(self._ours, 65_536)
            except BlockingIOError:
                break
            except OSError:  # the program has ended
                break
            if not written:
                break
            self.screen.feed(written.decode(errors="replace"))
        return self.screen.lines

    def shows(self, *texts: str) -> bool:
        """Tell whether all of these are on the screen by now."""
        shown = "\n".join(self.look())
        return all(text in shown for text in texts)

    @property
    def mode(self) -> list[object]:
        """How the terminal treats what is typed: as it was before, once the program has ended well."""
        return termios.tcgetattr(self._theirs)
