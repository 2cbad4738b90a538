"""The process that programs are forked from: it has imported what they all import, and waits for what to run.

``python -m tests.harness.forked FD [PROGRAM]`` with FD a socket on which ``forking.ForkServer`` asks, and PROGRAM one of ``PRELOADED_FOR``.
A program that is forked starts, runs and ends as one that an interpreter of its own runs, except that its command line reads like that of
this process.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import types
from typing import Any

PRELOADED = ("click", "redis.asyncio", "redis.asyncio.cluster", "redis.asyncio.sentinel", "async_tracker.tracker")
"""What nearly every program of the tests imports, and nothing of a worker library: a program may ask which ones are there."""

PRELOADED_FOR = {
    "arq": ("arq.cli", "async_tracker.integrations.arq.library", "async_tracker.integrations.arq.tracked_worker"),
}
"""What a program that is run by the name of its module imports beside that, before it reads what it was given.

Not dramatiq, which reads variables of the environment while it is imported: a program that is forked would have those of this process.
"""

MESSAGE_BYTES = 200_000
_PR_SET_PDEATHSIG = 1


def serve(control: socket.socket, prctl: Any) -> dict[str, Any]:
    """Fork a program for each request. Returns in the programs, each with what it is to run; here it ends with the process that asks."""
    reports: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is not control:
                    pid, report = reports.pop(key.fd)
                    ready.unregister(key.fd)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with contextlib.suppress(BrokenPipeError):  # the test that has started it no longer asks
                        os.write(report, str(code).encode())
                    os.close(report)
                    continue
                message, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
                if not message:  # the process that asks has ended; those forked here end with this one
                    os._exit(0)
                *streams, report = fds
                request: dict[str, Any] = json.loads(message)
                server, pid = os.getpid(), os.fork()
                if pid == 0:
                    for fd in (report, control.fileno(), *(fd for watched, (_, told) in reports.items() for fd in (watched, told))):
                        os.close(fd)
                    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                    if os.getppid() != server:  # it has ended before the kernel was asked
                        os._exit(1)
                    become(request, streams)
                    return request
                for fd in streams:
                    os.close(fd)
                watched = os.pidfd_open(pid)
                reports[watched] = pid, report
                ready.register(watched, selectors.EVENT_READ)
                control.send(str(pid).encode())


def become(request: dict[str, Any], streams: list[int]) -> None:
    """Make this process what a new interpreter would be: its session, streams, environment, folder and import path."""
    os.setsid()
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    first, *rest = request["arguments"]
    sys.argv = [first, *rest[1:]] if first in ("-c", "-m") else [first, *rest]
    beside = {"-c": "", "-m": request["cwd"]}.get(first, os.path.dirname(first))
    sys.path[0:1] = [beside, *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]


def run(arguments: list[str]) -> None:
    """Run what the interpreter's own command line would."""
    first, *rest = arguments
    if first == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        runpy.run_path(first, run_name="__main__")


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for name in (*PRELOADED, *PRELOADED_FOR.get("".join(sys.argv[2:]), ())):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    request = serve(control, prctl)
    gc.unfreeze()
    run(request["arguments"])


if __name__ == "__main__":
    main()
