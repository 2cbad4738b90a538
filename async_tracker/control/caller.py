"""Who gives an order, as far as this process knows."""

import getpass
import os
import socket


def caller() -> str:
    """Give user and host.

    >>> caller().count("@")
    1
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user often has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
