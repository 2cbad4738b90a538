"""One host is one to all its processes, whatever it can be known by."""

import subprocess
import sys
import uuid

import pytest

from async_tracker.instance import host
from async_tracker.instance.host import host_id, host_marks

MADE_UP = 1 << 40


def test_every_process_of_this_host_gives_the_same():
    said = subprocess.run(
        [sys.executable, "-c", "from async_tracker.instance.host import host_id; print(host_id())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == host_id()


@pytest.mark.parametrize("pid_namespace", ["pid:[4026531836]", ""])
@pytest.mark.parametrize("boot", ["5f0e", ""])
def test_a_hardware_address_that_python_made_up_is_no_mark(boot: str, pid_namespace: str):
    first = host_marks(boot=boot, pid_namespace=pid_namespace, node=MADE_UP + 1, name="web")
    assert first == host_marks(boot=boot, pid_namespace=pid_namespace, node=MADE_UP + 2, name="web")


def test_what_is_known_tells_hosts_and_containers_apart():
    marks = {
        host_marks(boot=boot, pid_namespace=pid_namespace, node=node, name="web")
        for boot in ("one", "other", "")
        for pid_namespace in ("pid:[1]", "pid:[2]")
        for node in (1, 2)
    }
    assert len(marks) == 2 * 2 + 2 * 2  # with a boot id the hardware address says nothing more


def test_without_boot_id_and_card_two_processes_still_agree(monkeypatch):
    monkeypatch.setattr(host, "_boot", lambda: "")
    ids = set()
    for number in (1, 2):
        monkeypatch.setattr(uuid, "getnode", lambda number=number: MADE_UP + number)
        ids.add(host_id())
    assert len(ids) == 1
