"""`ztunnel config`: where the dump comes from, formats, and what is no dump."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.analyze.test_summary import DUMP
from tests.cli.test_explain import page
from ztunnel.cli.main import main


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["config", *map(str, words)])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(DUMP))
    return path


def test_a_saved_dump_is_shown(saved: Path) -> None:
    found = call("workloads", "--file", saved, "-n", "bank")
    assert found.exit_code == 0
    assert found.output.splitlines()[0] == "NAMESPACE POD NAME ADDRESS          NODE WAYPOINT PROTOCOL"
    assert len(found.output.splitlines()) == 2


def test_all_has_a_title_for_each(saved: Path) -> None:
    found = call("all", "--file", saved)
    titles = [line for line in found.output.splitlines() if line.startswith("---")]
    assert titles == [
        f"------ {kind} INFO ------" for kind in ("WORKLOAD", "SERVICE", "POLICY", "SECRET", "CONNECTIONS")
    ]


def test_formats_say_the_same(saved: Path) -> None:
    as_json = json.loads(call("policies", "--file", saved, "-o", "json").output)
    assert as_json == yaml.safe_load(call("policies", "--file", saved, "-o", "yaml").output)
    assert [one["name"] for one in as_json] == ["p"]
    assert set(json.loads(call("all", "--file", saved, "-o", "json").output)) == {
        "workloads", "services", "policies", "certificates", "connections"
    }  # fmt: skip


def test_a_node_proxy_is_asked() -> None:
    with page(lambda path: (200, json.dumps(DUMP) if path == "/config_dump" else "")) as address:
        assert "web-1" in call("workloads", "--admin", address).output
    found = call("workloads", "--admin", "127.0.0.1:1")
    assert found.exit_code == 1
    assert "127.0.0.1:1: " in found.output


@pytest.mark.parametrize("text", ["<html>", "[]", "{}"])
def test_what_is_no_dump_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    found = call("workloads", "--file", path)
    assert found.exit_code == 1
    assert f"{path}: no configuration dump" in found.output


@pytest.mark.root
def test_a_laboratory_that_does_not_run_is_told_with_what_to_do() -> None:
    found = call("workloads", "--name", "nosuchlab")
    assert found.exit_code == 1
    assert "kubectl" in found.output  # a node of no laboratory is one of a cluster
