"""Runs one command: loads it, gives it an event loop, and makes an exit code of whatever it ends with."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from async_tracker.cli.endings import Ending, Misused, NotFound
from async_tracker.cli.streams import has_answer_stream, let_go
from async_tracker.cli.target import Target
from async_tracker.errors import ConfigError, StorageUnavailable, TrackerError

PROBE = "probe:check"

_EXTRAS = {"arq": "demo", "rich": "cli", "click": "cli", "starlette": "web", "uvicorn": "web", "prometheus_client": "prometheus"}


def run(where: str, target: Target, options: Mapping[str, Any]) -> int:
    """Run ``module:function`` of this package and return its exit code. What went wrong is one line on stderr, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an id that this terminal cannot show must not end the command
    module, _, function = where.partition(":")
    is_probe = where == PROBE  # whose answer is its exit code
    try:
        command = getattr(import_module(f"async_tracker.cli.{module}"), function)
        code: int = asyncio.run(command(target, **options))
        if not is_probe:
            sys.stdout.flush()
    except BrokenPipeError:
        let_go()  # the reader has seen enough: nothing more to flush
        return Ending.OK
    except OSError as exc:  # those on the way to Redis are errors of ours by now: this one is of the answer
        let_go()
        return _ended(f"the answer cannot be written: {exc.strerror or exc}", Ending.BAD_ANSWER)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _ended("interrupted", Ending.INTERRUPTED)
    except (ConfigError, Misused) as exc:
        return _ended(str(exc), Ending.USAGE)
    except ModuleNotFoundError as exc:
        if exc.name not in _EXTRAS:
            raise
        return _ended(f'{exc.name} is not installed: pip install "async-tracker[{_EXTRAS[exc.name]}]"', Ending.USAGE)
    except NotFound as exc:
        return _ended(str(exc), Ending.NOT_FOUND)
    except StorageUnavailable as exc:
        return _ended(str(exc), Ending.UNREACHABLE)
    except TrackerError as exc:
        return _ended(str(exc), Ending.BAD_ANSWER)
    if code == Ending.OK and not is_probe and not has_answer_stream():
        return _ended("the answer cannot be written: stdout is closed", Ending.BAD_ANSWER)
    return code


def _ended(why: str, ending: Ending) -> Ending:
    with suppress(OSError):  # then the exit code alone must do
        print(f"async-tracker: {' '.join(why.split())}", file=sys.stderr, flush=True)
    return ending
