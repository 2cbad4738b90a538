"""The page says what the code does."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import async_tracker
from async_tracker.namespace.document import with_tables

ROOT = Path(async_tracker.__file__).parents[1]
MODULES = ["annotate", "naming", "parsers", "pubsub", "replies", "rules", "shapes", "tabulate"]


def test_the_tables_of_commands_are_those_of_the_rules():
    page = (ROOT / "docs" / "namespace.md").read_text(encoding="utf-8")

    assert with_tables(page) == page, "run: python -m async_tracker.namespace.document docs/namespace.md"


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_hold(module):
    found = doctest.testmod(importlib.import_module(f"async_tracker.namespace.{module}"))

    assert found.attempted > 0
    assert found.failed == 0


def test_importing_the_namespace_imports_no_generator_and_no_worker_library():
    program = "import sys, async_tracker.namespace; print(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(ran.stdout.split())

    assert "async_tracker.namespace.rules" in modules
    assert modules.isdisjoint(
        {"async_tracker.namespace.tabulate", "async_tracker.namespace.annotate", "arq", "dramatiq", "click", "hypothesis"}
    )
