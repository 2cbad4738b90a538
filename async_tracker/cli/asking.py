"""A question to the person at the terminal, before something is done that cannot be undone or that many are meant by."""

import signal
import sys

import click

from async_tracker.cli.endings import Misused
from async_tracker.cli.target import Target


def must_be_able_to_ask(command: str, target: Target) -> None:
    """Raise Misused where no terminal is there to ask on."""
    if target.as_json or not sys.stdin.isatty():
        raise Misused(f"there is no terminal to ask on: write async-tracker {command} --yes")


def agreed(question: str) -> bool:
    """Ask, and tell whether the person agrees."""
    # The event loop would keep the first Ctrl-C for itself while a person is thinking.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return click.confirm(question)
    except click.Abort:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
