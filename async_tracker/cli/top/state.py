"""What a person has chosen to see, and what each key makes of it: pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum


class View(StrEnum):
    """What the rows of the screen are."""

    INSTANCES = "instances"
    JOBS = "jobs"
    FUNCTIONS = "functions"
    QUEUES = "queues"


VIEWS = tuple(View)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """By which column rows are sorted, and whether in the other direction than that column has by itself."""

    column: str
    is_reversed: bool = False


FIRST_ORDER = {View.INSTANCES: "STATE", View.JOBS: "RUNNING", View.FUNCTIONS: "RUNS/MIN", View.QUEUES: "WAITING"}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is shown, and how."""

    view: View = View.INSTANCES
    orders: dict[View, Order] = field(default_factory=lambda: {view: Order(column=column) for view, column in FIRST_ORDER.items()})
    first: int = 0
    """How many rows are above the first one that is shown."""
    wanted: str = ""
    """Rows without this text in them are left out."""
    is_typing: bool = False
    """What is typed goes into ``wanted``."""
    is_paused: bool = False
    is_over: bool = False

    @property
    def order(self) -> Order:
        """How the rows of this view are sorted."""
        return self.orders[self.view]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What keys move within: the columns that can be sorted by, how many rows there are, and how many are shown at a time."""

    columns: tuple[str, ...]
    rows: int
    page: int


def pressed(state: State, key: str, bounds: Bounds) -> State:
    """Give the state after a key; one that means nothing changes nothing.

    >>> bounds = Bounds(columns=("INSTANCE", "STATE", "BUSY"), rows=30, page=10)
    >>> pressed(State(), "right", bounds).order.column, pressed(State(), "r", bounds).order.is_reversed
    ('BUSY', True)
    >>> pressed(State(), "3", bounds).view.value, pressed(State(first=25), "down", bounds).first
    ('functions', 20)
    """
    if state.is_typing:
        return _typed(state, key)
    if key in _MOVES:
        last = max(bounds.rows - bounds.page, 0)
        return replace(state, first=min(max(_MOVES[key](state.first, bounds), 0), last))
    if key in ("left", "<", "right", ">"):
        return _sorted_by_the_next(state, -1 if key in ("left", "<") else 1, bounds.columns)
    if key in ("tab", "shift-tab"):
        step = 1 if key == "tab" else -1
        return replace(state, view=VIEWS[(VIEWS.index(state.view) + step) % len(VIEWS)], first=0)
    if key.isdecimal() and 0 < int(key) <= len(VIEWS):
        return replace(state, view=VIEWS[int(key) - 1], first=0)
    match key:
        case "q":
            return replace(state, is_over=True)
        case " ":
            return replace(state, is_paused=not state.is_paused)
        case "/":
            return replace(state, is_typing=True)
        case "esc":
            return replace(state, wanted="", first=0)
        case "r":
            order = replace(state.order, is_reversed=not state.order.is_reversed)
            return replace(state, orders={**state.orders, state.view: order}, first=0)
    return state


_MOVES: dict[str, Callable[[int, Bounds], int]] = {
    "up": lambda first, bounds: first - 1,
    "down": lambda first, bounds: first + 1,
    "page up": lambda first, bounds: first - bounds.page,
    "page down": lambda first, bounds: first + bounds.page,
    "home": lambda first, bounds: 0,
    "end": lambda first, bounds: bounds.rows,
}


def _typed(state: State, key: str) -> State:
    """Take a key into the text that is searched for.

    >>> [_typed(State(is_typing=True, wanted="a"), key).wanted for key in ("b", "backspace", "enter", "esc", "up")]
    ['ab', '', 'a', '', 'a']
    """
    if key in ("enter", "esc"):
        return replace(state, is_typing=False, wanted=state.wanted if key == "enter" else "", first=0)
    if key == "backspace":
        return replace(state, wanted=state.wanted[:-1], first=0)
    if len(key) == 1 and key.isprintable():
        return replace(state, wanted=state.wanted + key, first=0)
    return state


def _sorted_by_the_next(state: State, step: int, columns: tuple[str, ...]) -> State:
    if not columns:
        return state
    at = columns.index(state.order.column) if state.order.column in columns else 0
    order = Order(column=columns[(at + step) % len(columns)])
    return replace(state, orders={**state.orders, state.view: order}, first=0)


_SEQUENCES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1bOH": "home",
    "\x1bOF": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[Z": "shift-tab",
    "\x1b": "esc",
    "\t": "tab",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
}


def keys_in(typed: str) -> Iterator[str]:
    """Read what a terminal sends: characters as they are, and the names of other keys; a sequence that is not known is no key.

    >>> list(keys_in("q\\x1b[A\\x1b[6~é\\x1b[1;5C\\t\\x1b"))
    ['q', 'up', 'page down', 'é', 'tab', 'esc']
    """
    at = 0
    while at < len(typed):
        length = _length_of_sequence(typed, at)
        sequence = typed[at : at + length]
        at += length
        if sequence in _SEQUENCES:
            yield _SEQUENCES[sequence]
        elif length == 1 and sequence.isprintable():
            yield sequence


def _length_of_sequence(typed: str, at: int) -> int:
    if typed[at] != "\x1b" or at + 1 == len(typed):
        return 1
    if typed[at + 1] == "O":
        return min(3, len(typed) - at)
    if typed[at + 1] != "[":
        return 1
    end = at + 2
    while end < len(typed) and not "@" <= typed[end] <= "~":
        end += 1
    return end + 1 - at
