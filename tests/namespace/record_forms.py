"""Write down the forms of the commands for servers that do not document themselves (before Redis 7).

``python -m tests.namespace.record_forms OLD_URL NEW_URL ... > tests/namespace/recorded_forms.txt``: those of the old server's commands, as
the new ones document them.
"""

import sys
from pathlib import Path

import redis

from tests.namespace.forms import Form, documented_forms
from tests.namespace.oracle import Oracle, documentation

RECORDED = Path(__file__).with_name("recorded_forms.txt")


def recorded_forms() -> tuple[Form, ...]:
    """Read what was written down."""
    return tuple(tuple(line.split(" ")) for line in RECORDED.read_text().splitlines())


def is_sound(form: Form) -> bool:
    """Tell whether a server would carry out a form: MIGRATE takes one key or a list of keys, not both."""
    return not (form[0] == "MIGRATE" and "KEYS" in form[6:] and form[3])


if __name__ == "__main__":
    old, *new = [redis.Redis.from_url(url, decode_responses=True, protocol=2) for url in sys.argv[1:]]
    commands = Oracle(old).commands
    found = {form for client in new for form in documented_forms(documentation(client) or {}) if form[0] in commands}
    sys.stdout.writelines(" ".join(form) + "\n" for form in sorted(filter(is_sound, found)))
