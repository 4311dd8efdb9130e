import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.names import Names
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.publish import locked, write_hosts

POD = Pod("t", "a", "uid", Node("n1", 1), (ip_address("10.244.1.2"),), (), {}, {})
OTHER = replace(POD, name="b")


@pytest.mark.root
def test_hosts_are_written_into_the_same_file(laboratory: Laboratory) -> None:
    names = laboratory.names
    write_hosts(names, [(POD, "long text\n"), (OTHER, "")])
    path = names.hosts("t", "a")
    inode = path.stat().st_ino
    write_hosts(names, [(POD, "short\n")])
    assert path.read_text() == "short\n"
    assert path.stat().st_ino == inode
    assert [each.name for each in names.all_hosts.iterdir()] == ["t.a"]


@pytest.mark.root
def test_a_lock_is_held_by_one_and_survives_the_removal_of_its_file(new_name: Callable[[], str]) -> None:
    names = Names(new_name(), Path("/cgroup2"))
    fds = len(os.listdir("/proc/self/fd"))
    with locked(names):
        names.lock.unlink()
        with locked(names):
            assert names.lock.exists()
    names.lock.unlink()
    assert len(os.listdir("/proc/self/fd")) == fds
