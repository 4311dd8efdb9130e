"""A node proxy that cannot start: one sentence on what to fix, a status that says so, and nothing left."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import leftovers
from tests.mesh import lab
from ztunnel.demo import run
from ztunnel.demo.command import node_command, node_environment, program
from ztunnel.kernel import cgroup
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.redirect.load import remove

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

NOBODY = 65534


def become(user: int) -> list[str]:
    return ["setpriv", f"--reuid={user}", "--clear-groups"] if user else []


@dataclass
class Machine:
    """A machine for one node proxy: a network namespace, a cgroup, a folder of manifests, a place to pin."""

    name: str
    directory: Path
    pins: Path
    cgroup: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, user: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
        """Run `ztunnel node` until it gives up; options as flags, None leaves one out."""
        given: dict[str, object] = {
            "node": "n1",
            "manifests": self.directory / "manifests",
            "state_dir": self.directory / "state",
            "run_dir": self.directory / "run",
            "pins": self.pins,
            "pod_netns": "/run/netns/{namespace}-{name}",
            **options,
        }
        flags = [
            word
            for name, value in given.items()
            if value is not None
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        own = ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(self.cgroup)]
        there = ["nsenter", f"--net=/run/netns/{self.name}"]
        return subprocess.run(
            [*own, *there, *become(user), *program(os.environ), "node", *flags],
            env={**node_environment(os.environ), **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def listen(self, address: str, port: int) -> socket.socket:
        with NetworkNamespace.open(f"/run/netns/{self.name}") as there:
            sock = there.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        sock.bind((address, port))
        sock.listen()
        return sock


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    name = f"zt-{lab.unique()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "node.yaml").write_text("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n")
    own = cgroup.find_root() / name
    own.mkdir()
    machine = Machine(name, tmp_path, Path("/sys/fs/bpf/ztunnel") / name, own)
    before = leftovers.things()
    try:
        yield machine
        assert {thing for thing in leftovers.things() - before if name in thing[1]} == set()
        assert not machine.pins.exists()
    finally:
        if machine.pins.exists():
            remove(machine.pins)
        own.rmdir()
        subprocess.run(["ip", "netns", "del", name], check=True)


def assert_said(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """It failed with one short message that has these parts, and no stack."""
    assert done.returncode not in (0, -9, -6), done
    said = done.stderr
    assert "Traceback" not in done.stdout + said
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("Usage:", "Try "))]
    assert len(lines) == 1, said
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("address", "port", "setting"),
    [
        ("::", 15021, "ZTUNNEL_READINESS_ADDRESS"),
        ("127.0.0.1", 15020, "ZTUNNEL_METRICS_ADDRESS"),
        ("127.0.0.1", 15000, "ZTUNNEL_ADMIN_ADDRESS"),
    ],
)
def test_a_port_in_use_is_named_with_the_setting_that_moves_it(
    machine: Machine, address: str, port: int, setting: str
) -> None:
    with machine.listen(address, port):
        assert_said(machine.start(), str(port), "in use", setting)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"manifests": "/nowhere/at/all"}, ["/nowhere/at/all"]),
        ({"manifests": None}, ["--manifests"]),
        ({"pins": "/tmp/not-a-bpffs"}, ["/tmp/not-a-bpffs", "bpffs"]),
        ({"same_node": "sometimes"}, ["--same-node", "sometimes", "auto"]),
        ({"state_dir": "/proc/nowhere"}, ["/proc/nowhere"]),
    ],
)
def test_a_setting_that_is_wrong_or_missing_is_named(
    machine: Machine, options: dict[str, object], parts: list[str]
) -> None:
    assert_said(machine.start(**options), *parts)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_TTL", "a while"),
        ("HTTP2_FRAME_SIZE", "1"),
    ],
)
def test_a_variable_that_is_wrong_is_named(machine: Machine, name: str, value: str) -> None:
    machine.environment[name] = value
    assert_said(machine.start(), name, value)


def test_whoever_is_not_root_is_told_to_be(machine: Machine) -> None:
    machine.directory.chmod(0o777)
    assert_said(machine.start(user=NOBODY), "root")


def test_an_authority_that_is_broken_is_named_with_its_file_and_the_fix(machine: Machine) -> None:
    place = machine.directory / "state" / "ca"
    place.mkdir(parents=True, mode=0o700)
    (place / "root-cert.pem").write_text("not a certificate")
    (place / "root-key.pem").write_text("not a key")
    (place / "root-key.pem").chmod(0o600)
    done = machine.start()
    assert done.returncode not in (0, -9)
    assert "Traceback" not in done.stderr
    for name in ("root-cert.pem", "root-key.pem"):
        assert f"{place / name}" in done.stderr


def test_manifests_of_which_none_is_right_are_all_said(machine: Machine) -> None:
    (machine.directory / "manifests" / "node.yaml").unlink()
    (machine.directory / "manifests" / "a.yaml").write_text("a: b: c\n")
    (machine.directory / "manifests" / "b.yaml").write_text("kind: Pod\n")
    done = machine.start()
    assert done.returncode not in (0, -9)
    assert "Traceback" not in done.stderr
    assert "a.yaml:1" in done.stderr
    assert "b.yaml:1" in done.stderr


def test_another_proxy_of_the_same_node_does_not_harm_the_first() -> None:
    """With pins of its own it is no successor: it fails by its ports, and what is pinned stays as it is."""
    laboratory = lab.Laboratory(lab.unique())
    with laboratory:
        laboratory.up(
            lab.NODES + lab.namespace("shop") + lab.pod("shop/a", "node-1") + lab.pod("shop/b", "node-2")
        )
        names = laboratory.names
        mesh = lab.Mesh(laboratory)
        try:
            pins = names.pins("node-1")
            other = pins.with_name(f"{pins.name}x")
            words = [*node_command(names, laboratory.node("node-1"), os.environ), "--pins", str(other)]
            done = laboratory.exec_node("node-1", words, env=node_environment(os.environ))
            assert_said(done, "in use")
            assert not other.exists()
            assert mesh.call("shop/a", mesh.address("shop/b"), 8080).answers()
            assert mesh.call("shop/b", mesh.address("shop/a"), 8080).answers()
            assert len(run.processes(names.proxy_cgroup("node-1"))) == 1
        finally:
            mesh.finish()
