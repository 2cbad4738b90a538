"""What the documents show, taken out of them: a story runs the very text that a reader copies."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"# (?P<name>[\w.-]+\.\w+)\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """One fenced block. ``name`` is the file that its first line names, or ''."""

    document: str
    line: int
    language: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line} {self.name}".rstrip()


def documents() -> list[Path]:
    """Return the documents that a user reads."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def snippets(document: str) -> Iterator[Snippet]:
    """Find the fenced blocks of a document, named by its path in the checkout."""
    text = (ROOT / document).read_text()
    for found in _FENCE.finditer(text):
        block = found["text"]
        name = _NAME.match(block)
        line = text.count("\n", 0, found.start()) + 1
        yield Snippet(document=document, line=line, language=found["language"], name=name["name"] if name else "", text=block)


def snippet(document: str, name: str) -> Snippet:
    """Return the one block of a document whose first line names this file."""
    [found] = [block for block in snippets(document) if block.name == name]
    return found


def table(document: str, *, under: str) -> list[dict[str, str]]:
    """Read the first table below a heading: one dict per row, by the names of the columns; code marks are taken off.

    Raises ValueError where there is no such heading.
    """
    text = (ROOT / document).read_text()
    start = re.search(rf"^#+ {re.escape(under)}$", text, re.MULTILINE)
    if start is None:
        raise ValueError(f"{document} has no heading {under!r}")
    lines = text[start.end() :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "").replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    names = rows[0]
    return [dict(zip(names, row, strict=True)) for row in rows[2:]]
