"""What a user must be allowed in a worker library's Redis so that its jobs can be recovered: commands that show it by being run."""

from collections.abc import Mapping
from dataclasses import dataclass

Command = list[str | bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What recovery needs where a library's jobs are."""

    keys: str
    """The pattern of the library's keys, as an ACL rule has it."""
    commands: tuple[Command, ...]
    """Run in this order they leave everything as it was."""


def commands_of(table: str, names: Mapping[str, str | bytes]) -> list[Command]:
    """Read one command from each line; words that are ``names`` stand for keys and members.

    >>> commands_of('''
    ... SREM set job
    ... EVAL return 0
    ... ''', {"set": b"real", "job": "5f"})
    [['SREM', b'real', '5f'], ['EVAL', 'return 0', '0']]
    """
    commands: list[Command] = []
    for line in table.strip().splitlines():
        verb, *rest = line.split(" ")
        if verb == "EVAL":
            commands.append([verb, " ".join(rest), "0"])
        else:
            commands.append([verb, *(names.get(word, word) for word in rest)])
    return commands
