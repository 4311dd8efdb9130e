from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.lab import PINS, unique
from ztunnel.errors import Unsupported
from ztunnel.kernel import probe


def test_a_place_on_no_bpffs_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="choose a place under /sys/fs/bpf"):
        probe.require_bpffs(tmp_path)


@pytest.mark.parametrize(
    ("mounts", "lies"),
    [
        ("bpf /sys/fs/bpf bpf rw 0 0\n", True),
        ("sysfs /sys sysfs rw 0 0\n", False),
        ("bpf /sys/fs/bpf bpf rw 0 0\ntmpfs /sys/fs/bpf/ztunnel tmpfs rw 0 0\n", False),
    ],
)
def test_the_innermost_mount_counts(tmp_path: Path, mounts, lies) -> None:
    (tmp_path / "mounts").write_text(mounts)
    assert probe.lies_on_bpffs(Path("/sys/fs/bpf/ztunnel/n1"), str(tmp_path / "mounts")) is lies


@pytest.mark.root
def test_this_machine_can_redirect() -> None:
    probe.require_redirection(PINS / unique())


@pytest.mark.root
def test_a_process_without_rights_is_told_what_it_lacks() -> None:
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        told = []
        for require in (probe.require_root, probe.require_sk_lookup):
            try:
                require()
            except Unsupported as error:
                told.append(str(error))
        os._exit(0 if "needs root" in told[0] and "bpf is not permitted" in told[1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
