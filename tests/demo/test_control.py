"""The control plane of a laboratory: tokens for nodes, and a process that serves or says why not."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.demo.conftest import TEXT
from ztunnel.demo import command, control, run
from ztunnel.demo.cluster import Node, cluster
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.manifest import parse
from ztunnel.demo.names import Names
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.schedule import complete

GATEWAY = (
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: shop}\n"
    "spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n"
)
ONE, TWO = Node("node-1", 1), Node("node-2", 2)


@dataclass(frozen=True, slots=True)
class Here(Names):
    """Names whose files are somewhere else."""

    place: Path = Path()

    @property
    def directory(self) -> Path:
        return self.place


@pytest.fixture
def names(tmp_path: Path) -> Here:
    made = Here("lab", Path("/cgroup2"), tmp_path)
    made.control.mkdir()
    return made


def test_each_node_gets_a_token_once(names: Here) -> None:
    assert control.admit(names, [ONE])
    first = names.token("node-1").read_text()
    assert control.admit(names, [ONE, TWO])
    assert not control.admit(names, [ONE, TWO])
    assert names.token("node-1").read_text() == first
    lines = (names.control / "tokens").read_text().splitlines()
    assert lines == [
        f"{first},system:node:node-1,node-1",
        f"{names.token('node-2').read_text()},system:node:node-2,node-2",
    ]
    for file in (names.token("node-1"), names.control / "tokens"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_waypoint_has_the_token_of_its_account_and_is_told_of_no_folder(names: Here) -> None:
    (pod,) = cluster(complete({}, parse(GATEWAY, "x.yaml"), lambda: "uid")).pods
    assert control.admit(names, [ONE], [pod])
    assert not control.admit(names, [ONE], [pod])
    token = names.account_token("shop", "wp").read_text()
    line = f"{token},system:serviceaccount:shop:wp,shop.wp"
    assert (names.control / "tokens").read_text().splitlines()[1] == line
    told = control.waypoint_variables(names, pod, ONE)
    assert told["XDS_ADDRESS"] == "https://10.10.0.11:15012"
    assert told["AUTH_TOKEN"] == str(names.account_token("shop", "wp"))
    (program,) = command.programs(pod)
    words, environment = command.completed(names, program, {}, told)
    assert "--manifests" not in words
    assert environment["XDS_ADDRESS"] == told["XDS_ADDRESS"]
    assert environment["POD_NAME"] == pod.name


def test_a_node_proxy_is_told_of_it_and_not_of_the_folder(names: Here) -> None:
    control.admit(names, [TWO])
    told = control.node_variables(names, "node-2", ONE)
    assert told["XDS_ADDRESS"] == "https://10.10.0.11:15012"
    assert told["AUTH_TOKEN"] == str(names.token("node-2"))
    words = command.node_command(names, TWO, {})
    assert "--manifests" not in words
    assert "--manifests" in command.node_command(Names("lab", Path("/cgroup2")), TWO, {})


@pytest.mark.root
@pytest.mark.timeout(60)
def test_what_does_not_start_is_told_with_its_log(new_laboratory: Callable[[], Laboratory]) -> None:
    with new_laboratory() as laboratory:
        laboratory.up(TEXT, start_nodes=False)
        laboratory.names.control.mkdir()
        with pytest.raises(LaboratoryFailed, match=r"the control plane ended with 1; its log:\n.*tokens"):
            control.start(laboratory.names, ONE)
        control.admit(laboratory.names, [ONE])
        process = control.start(laboratory.names, ONE)
        assert run.processes(laboratory.names.control_cgroup) == [process.pid]
    assert process.wait() != 0
