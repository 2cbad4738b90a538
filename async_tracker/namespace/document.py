"""Write the table of all commands into its page: ``python -m async_tracker.namespace.document docs/namespace.md``."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from async_tracker.namespace.refusals import REFUSED, REFUSED_FAMILIES
from async_tracker.namespace.replies import REPLIES
from async_tracker.namespace.rules import SHAPES

BEGIN, END = "<!-- commands: begin -->", "<!-- commands: end -->"

MEANINGS: Mapping[str, str] = {
    "1": "one key",
    "2": "one key, after a subcommand or a value",
    "1:": "every argument",
    "2:": "every argument from the second on",
    "1:3": "two keys",
    "1:-1": "every argument but the last",
    "1::2": "every second argument",
    "1::3": "every third argument",
    "#1": "as many keys as the first argument says",
    "#2": "as many keys as the second argument says",
    "#1*2": "as many keys as the first argument says, a value after each",
    "1 #2": "a destination, and as many keys as the second argument says",
    "@client_tracking": "each PREFIX; BCAST without one gets the namespace's",
    "@georadius": "the key and STORE, STOREDIST",
    "@georadiusbymember": "the key and STORE, STOREDIST",
    "@keys": "the pattern",
    "@migrate": "the key or those after KEYS",
    "@psubscribe": "every pattern; in a keyspace notification's, the key",
    "@pubsub_channels": "the pattern; without one, the namespace's is added",
    "@scan": "MATCH; without one, the namespace's is added",
    "@sort": "the key, STORE and the patterns of BY and GET",
    "@stralgo": "the two after KEYS",
    "@subscribe": "every channel; in a keyspace notification's, the key",
    "@xread": "the first half of what follows STREAMS",
}


def command_tables() -> str:
    """Return the tables of what is prefixed, refused and passed, in Markdown."""
    by_shape: dict[str, list[str]] = {}
    for name, shape in sorted(SHAPES.items()):
        by_shape.setdefault(shape, []).append(name)
    passed = by_shape.pop("-")
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(REFUSED.items()):
        by_reason.setdefault(reason, []).append(name)
    for family, reason in REFUSED_FAMILIES.items():
        by_reason.setdefault(reason, []).append(f"{family}*" if family.endswith(".") else f"{family} *")
    total = len(SHAPES) + len(REFUSED)
    return "\n".join(
        [
            f"{total} commands and subcommands: {len(SHAPES) - len(passed)} prefixed, {len(passed)} passed, {len(REFUSED)} refused.",
            "",
            "### Prefixed",
            "",
            "An asterisk marks a command whose reply carries names, which come back without the namespace.",
            "",
            "| what is prefixed | commands |",
            "|---|---|",
            *(f"| {MEANINGS[shape]} | {', '.join(_marked(name) for name in names)} |" for shape, names in sorted(by_shape.items())),
            "",
            "### Refused",
            "",
            "| why, and what instead | commands |",
            "|---|---|",
            *(f"| {reason} | {', '.join(f'`{name}`' for name in names)} |" for reason, names in sorted(by_reason.items())),
            "",
            "### Passed as they are",
            "",
            "They take no key and tell of none.",
            "",
            ", ".join(f"`{name}`" for name in passed),
        ]
    )


def _marked(name: str) -> str:
    return f"`{name}`" + ("*" if name in REPLIES else "")


def with_tables(page: str) -> str:
    """Return the page with its tables as they should be now. Raises ValueError if it has no place for them."""
    if BEGIN not in page or END not in page:
        raise ValueError(f"the page has no place for the tables: {BEGIN} and {END}")
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{command_tables()}\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
