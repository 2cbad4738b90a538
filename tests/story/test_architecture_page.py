"""docs/architecture.md against the import contracts and the files that it names."""

import re
import tomllib

from tests.harness.forking import ROOT
from tests.story.snippets import snippets

PAGE = "docs/architecture.md"
PACKAGE = ROOT / "async_tracker"


def exists(module: str) -> bool:
    return (PACKAGE / f"{module}.py").exists() or (PACKAGE / module / "__init__.py").exists()


def test_the_floors_are_those_of_the_import_contracts():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [{name for name in re.findall(r"\w+", layer) if exists(name)} for layer in contracts[0]["layers"]]
    held = [floor for floor in floors if floor]  # the contract has room for some that are to come
    lines = [line.split("|") for line in next(snippets(PAGE)).text.splitlines()]
    drawn: list[set[str]] = []
    for names, purpose in lines:
        if purpose:
            drawn.append(set())
        drawn[-1] |= set(names.split())  # a floor that needs two lines says what it is for in the first
    assert drawn == held


def test_every_file_that_is_named_exists():
    text = (ROOT / PAGE).read_text()
    named = set(re.findall(r"`([\w/]+\.(?:py|lua|toml))`", text)) | set(re.findall(r"`(tests/\w+)`", text))
    assert named
    missing = {name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()}
    assert missing == set()


def test_the_table_names_every_file_of_its_folders():
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert rows
    for folder, files in rows:
        held = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}
        held |= {f"{path.parent.name}/" for path in (PACKAGE / folder).glob("*/__init__.py")}
        named = set(re.findall(r"`(\w+/?)`", files))
        assert (folder, sorted(held - named)) == (folder, [])
        assert all((PACKAGE / folder / name).exists() or name in held for name in named), folder
