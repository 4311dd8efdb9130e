"""The unit for machines that boot: it runs a command that there is, before whoever starts pods."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess

import pytest

from tests.deploy.chart import ROOT
from ztunnel.cli.load import load

UNIT = ROOT / "deploy" / "host" / "ztunnel-load.service"
KUBELETS = {"kubelet.service", "k3s.service", "k3s-agent.service"}


@pytest.fixture
def unit() -> configparser.ConfigParser:
    read = configparser.ConfigParser(interpolation=None, strict=False)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read(UNIT)
    return read


def test_it_runs_before_every_kubelet_and_once(unit: configparser.ConfigParser) -> None:
    assert set(unit["Unit"]["Before"].split()) == KUBELETS == set(unit["Install"]["WantedBy"].split())
    assert (unit["Service"]["Type"], unit["Service"]["RemainAfterExit"]) == ("oneshot", "yes")
    assert "Requires" not in unit["Install"]  # a node that lacks it starts


def test_its_command_and_its_options_are_there(unit: configparser.ConfigParser) -> None:
    program, command, *options = shlex.split(unit["Service"]["ExecStart"])
    assert (program.rpartition("/")[2], command) == ("ztunnel", load.name)
    known = {name for each in load.params for name in each.opts}
    assert set(options) <= known
    assert unit["Service"]["Environment"] == "NODE_NAME=%H"


def test_systemd_understands_it(tmp_path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        assert UNIT.read_text().count("[Service]") == 1
        return
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/ztunnel/bin/ztunnel", "/bin/true"))
    done = subprocess.run([verify, "verify", str(copy)], capture_output=True, text=True)
    assert "Unknown" not in done.stderr, done.stderr
