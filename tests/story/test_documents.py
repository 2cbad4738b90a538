"""All documents at once: every snippet is run or at least right, every link leads somewhere, nothing on them is of this machine."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import async_tracker
from tests.story.snippets import ROOT, Snippet, documents, snippets

STORIES = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
OURS = [
    "README.md",
    "docs/adopting.md",
    "docs/architecture.md",
    "docs/events.md",
    "docs/redis-schema.md",
    "docs/settings.md",
    "docs/web.md",
]
PYTHON = [block for path in documents() for block in snippets(str(path.relative_to(ROOT))) if block.language == "python"]


@pytest.mark.parametrize("block", [block for block in PYTHON if block.document in OURS], ids=str)
def test_a_story_runs_the_snippet(block: Snippet):
    assert block.name, f"{block}: its first line names no file"
    assert f'"{block.name}"' in STORIES


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_the_snippet_imports_what_there_is(block: Snippet):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("async_tracker"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def anchors(text: str) -> set[str]:
    """Return what the headings of a document are called in a link, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(linked.read_text()), f"{path.name} links to {target}"


def test_every_document_is_found_from_the_first_page():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path not in seen and path.suffix == ".md" and path.exists():
            seen.add(path)
            waiting += [(path.parent / name).resolve() for name in re.findall(r"\]\(([^)#\s]+)", path.read_text()) if ":" not in name]
    assert {str(path.relative_to(ROOT)) for path in documents()} <= {str(path.relative_to(ROOT)) for path in seen}


def prose(text: str) -> list[str]:
    """Return the lines of a document that can be wrapped: not code, no row of a table, no picture."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in without_code.splitlines() if not line.startswith(("|", "    ", "<"))]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_its_lines_are_wrapped_so_that_a_changed_sentence_is_a_changed_line(path: Path):
    too_long = [line for line in prose(path.read_text()) if len(line) > 120]
    assert [line for line in too_long if not line.startswith("`")] == [], "but a list of commands that is made"


def test_what_can_be_wrapped_is_told_from_what_cannot():
    text = "A sentence.\n\n```\ncode\n```\n\n    code\n| a row |\n<img>\n- an item\n"
    assert [line for line in prose(text) if line] == ["A sentence.", "- an item"]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_to_be_written(path: Path):
    assert re.findall(r"\b(?:TODO|TBD|FIXME|XXX)\b|/(?:tmp/\w+|wor[k]|home/\w+)/", path.read_text()) == []


def test_the_readme_names_every_query_that_there_is():
    readme = (ROOT / "README.md").read_text()
    asking = ("instances", "instance", "jobs", "job", "orphans", "quarantined", "queues", "stats", "snapshot", "recover", "events")
    assert [name for name in asking if not hasattr(async_tracker.Tracker, name) or f"{name}(" not in readme] == []
