"""`ztunnel bug-report`: where it is written, what it says, where there is nothing to report on."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ztunnel.analyze.forward import NoCluster
from ztunnel.cli import bug_report as command
from ztunnel.cli.main import main


def fail(*_: object) -> str:
    raise NoCluster("kubectl is not in PATH")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(command, "machine_parts", lambda settings: {"machine/a.txt": lambda: "a"})
    monkeypatch.setattr(command, "cluster_parts", lambda namespace: {"b": fail, "c": lambda: namespace})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["bug-report", "--name", "nosuchlab", *map(str, words)])


def test_it_is_written_here_by_its_time(call: Path) -> None:
    found = run()
    assert found.exit_code == 0
    (path,) = call.glob("ztunnel-bug-report-*.tar.gz")
    assert found.output == f"{path.name}: 2 files; 1 parts are missing, errors.txt says why\n"
    with tarfile.open(path) as archive:
        assert {Path(name).name for name in archive.getnames()} == {"a.txt", "c", "errors.txt"}


def test_it_is_written_where_it_is_wanted(call: Path) -> None:
    assert run("-o", call / "x.tgz").exit_code == 0
    assert (call / "x.tgz").exists()
    found = run("-o", call / "none/x.tgz")
    assert found.exit_code == 1
    assert "none/x.tgz: No such file or directory" in found.output


def test_where_there_is_nothing_that_is_said(call: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "cluster_parts", fail)
    found = run()
    assert found.exit_code == 1
    assert "neither a laboratory 'nosuchlab' nor a cluster: kubectl is not in PATH" in found.output
