"""Where this process runs: names for people, and an identity that two hosts cannot share."""

import contextlib
import hashlib
import os
import platform
import resource
import secrets
import socket
import sys
import uuid
from importlib import metadata
from pathlib import Path


def hostname() -> str:
    """The host's name, as people know it; inside a container mostly the container's id."""
    return socket.gethostname()


def host_id() -> str:
    """Give what distinguishes this host from another of the same name: the boot and the pid namespace; elsewhere the hardware address.

    Two processes with the same id see each other's pids, so while one of them runs the host of the other is there.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        marks = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        marks = f"{uuid.getnode()} {hostname()}"
    return hashlib.sha256(marks.encode()).hexdigest()[:16]


def new_instance_id(label: str | None) -> str:
    """Make the id of an instance: ``host:pid:nonce``, or ``label:pid:nonce``. Never the same twice.

    >>> new_instance_id("pod-7").startswith("pod-7:")
    True
    """
    return f"{label or hostname()}:{os.getpid()}:{secrets.token_hex(6)}"


def versions(*distributions: str) -> dict[str, str]:
    """Tell the versions of Python, of this library and of others that are installed."""
    found = {"python": platform.python_version()}
    for name in ("async-tracker", "redis", *distributions):
        with contextlib.suppress(metadata.PackageNotFoundError):  # not installed: nothing to say
            found[name] = metadata.version(name)
    return found


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_bytes() -> int:
    """Memory of this process in bytes; where /proc is missing, the most that it ever had."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
