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
    """Give what distinguishes this host from another of the same name: the boot and the pid namespace.

    Two processes with the same id see each other's pids, so while one of them runs the host of the other is there. Where the kernel
    tells no boot, hardware address and name stand for it; where there is no network card either, the name and the pid namespace alone.
    """
    marks = host_marks(boot=_boot(), pid_namespace=_pid_namespace(), node=uuid.getnode(), name=hostname())
    return hashlib.sha256(marks.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def host_marks(*, boot: str, pid_namespace: str, node: int, name: str) -> str:
    """Choose what a host is known by; each process of it must choose the same.

    A node with the multicast bit is none of a network card: Python makes a new one up in each process.

    >>> host_marks(boot="b00t", pid_namespace="pid:[1]", node=7, name="web")
    'b00t pid:[1]'
    >>> host_marks(boot="", pid_namespace="", node=7, name="web")
    '7 web'
    >>> host_marks(boot="", pid_namespace="pid:[1]", node=(1 << 40) + 7, name="web")
    'pid:[1] web'
    """
    if boot and pid_namespace:
        return f"{boot} {pid_namespace}"
    hardware = "" if node & _MULTICAST else str(node)
    return " ".join(mark for mark in (boot or hardware, pid_namespace, name) if mark)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


_MULTICAST = 1 << 40


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
