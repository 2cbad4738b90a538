"""On what the numbers were measured: printed before anything else, for without it they mean nothing."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.ground import Ground, where

_ROOT = Path(__file__).resolve().parents[1]


def environment(ground: Ground, *, size: str) -> dict[str, str]:
    """Describe the machine, the software and the moment."""
    server = ground.sync.info("server")
    version = server.get("valkey_version") or server["redis_version"]
    place = "unix socket" if ground.url.startswith("unix") else where(ground.url)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "size": size,
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {_memory_gb():.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "server": f"{server.get('server_name', 'redis')} {version}, {place}",
        "libraries": ", ".join(f"{name} {_version(name)}" for name in ("async-tracker", "arq", "redis", "hiredis")),
        "commit": _commit(),
    }


def header(found: dict[str, str]) -> str:
    """Write it for a person."""
    width = max(map(len, found))
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in found.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    def git(*arguments: str) -> Any:
        return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)

    described = git("rev-parse", "--short", "HEAD")
    if described.returncode != 0:
        return "not a checkout"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "async_tracker").stdout.strip()
    return str(described.stdout.strip()) + (" and changes that are not committed" if changed else "")
