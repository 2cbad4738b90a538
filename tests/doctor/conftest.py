"""``doctor`` is asked as a person asks it: on the command line."""

from tests.cli.conftest import cli, make_cli

__all__ = ["cli", "make_cli"]
