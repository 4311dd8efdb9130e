from pathlib import Path

import pytest

from ztunnel.demo.check import check
from ztunnel.errors import Unsupported


@pytest.mark.root
def test_a_machine_that_can_hold_a_laboratory_says_where_cgroup_v2_is() -> None:
    assert (check() / "cgroup.procs").exists()


@pytest.mark.root
def test_missing_programs_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match=r"nft and .* not found: apt-get install -y mount nftables"):
        check()


def test_no_root_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Unsupported, match="needs root"):
        check()
