"""Authors of integrations have one door, and the page on integrations goes through it alone."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import async_tracker.integrations as door
from tests.story.snippets import snippet, snippets

PAGE = "docs/integrations.md"
DOORS = {"async_tracker", "async_tracker.integrations"}


def test_the_door_hands_on_what_its_list_says_and_type_checkers_are_told_the_same():
    stub = ast.parse(Path(door.__file__).with_suffix(".pyi").read_text())
    told = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    homes = vars(door)["_HOMES"]
    assert told == homes
    assert sorted(homes) == sorted(door.__all__)
    assert all(getattr(door, name) is getattr(importlib.import_module(home), name) for name, home in homes.items())
    assert [name for name in door.__all__ if not inspect.getdoc(getattr(door, name))] == []


def test_the_door_loads_nothing_before_it_is_asked():
    program = "import sys, async_tracker.integrations\nprint(*sorted({'redis', 'asyncio', 'arq', 'dramatiq'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"


def modules_of_ours(source: str) -> set[str]:
    """The modules of the package from which a program imports."""
    nodes = list(ast.walk(ast.parse(source)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name for name in found if name.split(".")[0] == "async_tracker"}


def test_the_page_on_integrations_imports_from_the_door_alone_and_all_that_it_needs():
    assert modules_of_ours(snippet(PAGE, "tracked_listq.py").text) == DOORS
    assert set().union(*(modules_of_ours(block.text) for block in snippets(PAGE) if block.language == "python")) == DOORS


def test_the_page_on_integrations_names_everything_that_the_door_hands_on():
    page = (Path(door.__file__).parents[2] / PAGE).read_text()
    assert [name for name in door.__all__ if f"`{name}`" not in page] == []
