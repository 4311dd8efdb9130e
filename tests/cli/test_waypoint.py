"""`ztunnel waypoint` where it cannot run: one sentence and an exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from ztunnel.cli._waypoints import COMMANDS
from ztunnel.cli.main import main


def test_it_needs_a_folder_or_a_control_plane(monkeypatch) -> None:
    monkeypatch.delenv("XDS_ADDRESS", raising=False)
    found = CliRunner().invoke(main, ["waypoint"])
    assert found.exit_code == 2
    assert "--manifests DIR, or --xds-address URL" in found.output


def test_it_needs_to_be_told_which_pod_it_is(tmp_path: Path, monkeypatch) -> None:
    for name in ("POD_NAME", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "manifests").mkdir()
    words = ["waypoint", "--manifests", str(tmp_path / "manifests"), "--state-dir", str(tmp_path / "state")]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 1
    assert "which pod is this? Set POD_NAME" in found.output


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["waypoint", "--manifests", str(tmp_path / "none")])
    assert found.exit_code == 1
    assert str(tmp_path / "none") in found.output


def test_all_that_see_to_waypoints_of_a_cluster_are_named(monkeypatch) -> None:
    shown = CliRunner().invoke(main, ["waypoint", "--help"]).output
    for name, command in COMMANDS.items():
        assert f"\n  {name}" in shown
        assert CliRunner().invoke(main, ["waypoint", name, "--help"]).exit_code == 0
        assert command.name == name
    assert CliRunner().invoke(main, ["waypoint", "none"]).exit_code == 2


def test_a_waypoint_imports_what_it_uses_only() -> None:
    unwanted = {
        "ztunnel.analyze",
        "ztunnel.demo",
        "ztunnel.control.source",
        "ztunnel.kube.call",
        "httpx2",
        "yaml",
    }
    unwanted |= {"asyncio", "http.server", "urllib.request", "lightkube", "difflib", "ztunnel.zds"}
    code = f"import sys, ztunnel.cli.waypoint; print({unwanted} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
