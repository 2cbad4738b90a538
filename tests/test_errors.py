"""One ``except`` catches whatever the library raises on purpose, and each error carries its facts."""

import ast
import inspect
from pathlib import Path

from async_tracker import errors
from async_tracker.errors import ConfigError, CorruptRecord, StorageError, TrackerError

PACKAGE = Path(errors.__file__).parent
ENDINGS = PACKAGE / "cli/endings.py"
"""What a command raises to end itself: caught in the command line, which no caller imports."""
ANSWERS = PACKAGE / "web/answers.py"
"""What a handler of the page raises to answer with a status: caught in the page."""


def test_every_error_is_a_tracker_error_and_is_made_in_one_place():
    made = [found for _, found in inspect.getmembers(errors, inspect.isclass)]
    assert all(issubclass(found, TrackerError) for found in made)
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in PACKAGE.rglob("*.py")
        if path not in (PACKAGE / "errors.py", ENDINGS, ANSWERS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any("Error" in ast.unparse(base) or "Exception" in ast.unparse(base) for base in node.bases)
    ]
    assert elsewhere == []


def test_a_wrong_setting_is_a_value_error_too():
    assert issubclass(ConfigError, ValueError)


def test_a_corrupt_record_says_which_key_and_why():
    error = CorruptRecord("job:42", "it is no JSON")
    assert isinstance(error, StorageError)
    assert (error.key, error.reason) == ("job:42", "it is no JSON")
    assert "'job:42'" in str(error)
    assert "it is no JSON" in str(error)


def test_every_error_says_in_its_docstring_when_it_is_raised():
    assert [name for name, found in inspect.getmembers(errors, inspect.isclass) if not inspect.getdoc(found)] == []
