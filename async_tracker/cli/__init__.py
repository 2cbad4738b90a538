"""``async-tracker``: the tracker from a shell.

Only what the entry point needs is loaded here: a question for help must not wait for a Redis client.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

from async_tracker.cli.streams import open_missing

_USAGE, _INTERRUPTED = 2, 130


def main() -> None:
    """Run the command line and end the process with its exit code."""
    open_missing()
    if find_spec("click") is None or find_spec("rich") is None:
        print('async-tracker: the command line needs its extra: pip install "async-tracker[cli]"', file=sys.stderr)
        sys.exit(_USAGE)
    try:
        code: int = import_module("async_tracker.cli.program").run(sys.argv[1:])
    except KeyboardInterrupt:  # while it was still being loaded
        code = _INTERRUPTED
    sys.exit(code)
