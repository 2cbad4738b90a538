"""Copies of the package, for tests that add something to it."""

import shutil
from pathlib import Path

import async_tracker

ROOT = Path(async_tracker.__file__).parents[1]


def copy_package(folder: Path) -> Path:
    """Copy the package and its contracts into a folder, and return the package there.

    A process imports it when that folder is its working directory and the first on its path.
    """
    shutil.copytree(ROOT / "async_tracker", folder / "async_tracker", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder / "async_tracker"


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one place where a file says ``old``."""
    source = path.read_text()
    assert source.count(old) == 1, f"{path.name} says {old!r} {source.count(old)} times"
    path.write_text(source.replace(old, new))
