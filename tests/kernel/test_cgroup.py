from __future__ import annotations

import os
import subprocess

import pytest

from tests.kernel.lab import unique
from ztunnel.errors import Unsupported
from ztunnel.kernel import cgroup


@pytest.mark.parametrize(
    ("mounts", "root"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "/sys/fs/cgroup"),
        (
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\nx /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "/sys/fs/cgroup/unified",
        ),
        ("x /odd\\040place cgroup2 rw 0 0\n", "/odd place"),
    ],
)
def test_cgroup_v2_is_found_wherever_it_is_mounted(tmp_path, mounts, root) -> None:
    (tmp_path / "mounts").write_text(mounts)
    assert str(cgroup.find_root(str(tmp_path / "mounts"))) == root


def test_without_cgroup_v2_the_fix_is_named(tmp_path) -> None:
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n")
    with pytest.raises(Unsupported, match="mount -t cgroup2"):
        cgroup.find_root(str(tmp_path / "mounts"))


@pytest.mark.root
def test_a_part_of_the_hierarchy_is_told_from_its_root() -> None:
    root = cgroup.find_root()
    made = cgroup.create(root / unique())
    try:
        assert cgroup.is_view(made)
        assert not cgroup.is_view(root)
    finally:
        cgroup.remove(made)


@pytest.mark.root
def test_a_process_joins_a_cgroup_and_an_empty_one_is_removed() -> None:
    root = cgroup.find_root()
    made = cgroup.create(cgroup.create(root / unique()))
    sleeper = subprocess.Popen(["sleep", "30"])
    try:
        cgroup.join(made, sleeper.pid)
        assert (made / "cgroup.procs").read_text().split() == [str(sleeper.pid)]
        assert cgroup.cgroup_id(made) == os.stat(made).st_ino
        with pytest.raises(OSError, match="busy"):
            cgroup.remove(made)
    finally:
        sleeper.kill()
        sleeper.wait()
        cgroup.remove(made)
    assert cgroup.own_path(root).is_relative_to(root)
