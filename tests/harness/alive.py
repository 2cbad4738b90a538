"""Whether a process is still there."""

import os
import subprocess
from pathlib import Path

_PROC = Path("/proc/self")


def lives(pid: int) -> bool:
    """Tell whether a process is there and no mere zombie. It may go while it is looked at."""
    try:
        os.kill(pid, 0)
        if not _PROC.exists():  # not Linux: no more can be told
            return True
        return _state(pid) != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def is_suspended(pid: int) -> bool:
    """Tell whether a process that is still there has been stopped by SIGSTOP."""
    return _state(pid) == "T"


def _state(pid: int) -> str:
    if _PROC.exists():
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return subprocess.run(["ps", "-o", "state=", "-p", str(pid)], check=True, capture_output=True, text=True).stdout[:1]


def parent(pid: int) -> int:
    """Give the process that has started one that is still there."""
    if _PROC.exists():
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], check=True, capture_output=True, text=True).stdout)
