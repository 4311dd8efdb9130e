"""A machine is looked at: what it has is tried, what it lacks is named with its fix."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.kernel.lab import unique
from ztunnel.analyze import probe
from ztunnel.analyze.checks import Check, State
from ztunnel.config import Settings
from ztunnel.errors import Unsupported
from ztunnel.kernel.capability import Capability
from ztunnel.model.address import Endpoint
from ztunnel.redirect.load import remove
from ztunnel.run import load

pytestmark = [pytest.mark.root, pytest.mark.timeout(30)]

SETTINGS = Settings(node="probed", admin_address=Endpoint(IPv4Address("127.0.0.1"), 0))


def checked(settings: Settings = SETTINGS, root: Path = Path("/nonexistent")) -> dict[str, Check]:
    return {one.name: one for one in probe.probe_machine(settings, root)}


@pytest.fixture(scope="module")
def here() -> dict[str, Check]:
    return checked()


def test_this_machine_can_run_a_node_proxy(here: dict[str, Check]) -> None:
    assert not [one for one in here.values() if one.state is State.FAIL]
    assert here["sk_lookup programs"].found == "loaded and dropped"
    assert here["SOCK_DESTROY"].found == "done"
    assert here["CAP_NET_ADMIN"].state is State.OK


def test_nothing_is_left_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    checked()
    assert descriptors() == before


def test_a_taken_port_is_named_with_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        taken = replace(SETTINGS, metrics_address=Endpoint(IPv4Address("127.0.0.1"), port))
        found = checked(taken)[f"port {port}"]
    assert (found.state, "Address already in use" in found.found) == (State.WARN, True)
    assert "ZTUNNEL_METRICS_ADDRESS" in found.fix


@pytest.mark.parametrize(
    ("release", "state"),
    [("5.18.0-1", State.FAIL), ("5.19.17", State.OK), ("6.1.0-56-amd64", State.OK), ("4.4", State.FAIL)],
)
def test_the_kernels_version(release: str, state: State) -> None:
    assert probe._version(release).state is state


def test_few_descriptors_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    found = checked()["descriptors"]
    assert (found.state, found.found) == (State.WARN, "4096")


def test_capabilities_are_read_from_the_process(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000003000\nCapBnd:\tffff\n")
    assert probe.effective(status) == {Capability.NET_ADMIN, Capability.NET_RAW}
    status.write_text("")
    assert probe.effective(status) == set()


def test_a_missing_capability_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "effective", lambda: frozenset({Capability.NET_ADMIN}))
    found = {one.name: one.state for one in probe._privileges()}
    assert found == {
        "CAP_NET_ADMIN": State.OK,
        "CAP_NET_RAW": State.FAIL,
        "CAP_SYS_PTRACE": State.FAIL,
        "CAP_SYS_ADMIN": State.FAIL,
        "CAP_BPF": State.FAIL,
    }


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_what_the_kernel_lacks_is_a_failure_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.probe, "require_sk_lookup", failing(Unsupported("no sk_lookup: Linux 5.15")))
    found = checked()["sk_lookup programs"]
    assert (found.state, found.found, found.fix) == (State.FAIL, "no sk_lookup", "Linux 5.15")


@pytest.mark.parametrize(("nft", "state"), [("/usr/sbin/nft", State.OK), (None, State.WARN)])
def test_without_netfilter_programs_there_is_nft(
    monkeypatch: pytest.MonkeyPatch, nft: str | None, state: State
) -> None:
    monkeypatch.setattr(probe.bpf, "prog_load", failing(OSError(22, "Invalid argument")))
    monkeypatch.setattr(probe.shutil, "which", lambda _: nft)
    assert probe._forward_programs().state is state


def test_without_a_compiler_nothing_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Unsupported("the eBPF compiler is missing: apt-get install python3-bpfcc")
    monkeypatch.setattr(probe, "require_compiler", failing(missing))
    found = probe._programs(replace(SETTINGS, node="never-loaded"))
    assert (found.state, found.fix) == (State.FAIL, "apt-get install python3-bpfcc")


def test_without_sock_destroy_there_are_tunnels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "destroy", failing(OSError(95, "Operation not supported")))
    assert probe._destroying().state is State.WARN


def test_other_agents_are_found_by_their_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "etc/cni/net.d"
    folder.mkdir(parents=True)
    plugins = [{"type": "ptp"}, {"type": "istio-cni"}]
    (folder / "10-x.conflist").write_text(json.dumps({"plugins": plugins}))
    found = checked(root=tmp_path)
    assert (found["istio-cni"].state, found["istio-cni"].found) == (State.WARN, "in /etc/cni/net.d")
    assert "linkerd-cni" not in found


def test_pods_in_cgroup_v1_alone_are_told(tmp_path: Path) -> None:
    for name in ("unified", "memory"):
        (tmp_path / name).mkdir()
    mounts = tmp_path / "mounts"
    lines = (
        f"cgroup {tmp_path / name} {kind} rw 0 0"
        for name, kind in (("memory", "cgroup"), ("unified", "cgroup2"))
    )
    mounts.write_text("\n".join(lines))

    def look() -> Check:
        return probe.kubelet_check(tmp_path / "unified", str(mounts))

    assert (look().state, look().found) == (State.OK, "none runs here")
    (tmp_path / "memory" / "kubepods").mkdir()
    assert look().state is State.WARN
    assert str(tmp_path / "memory" / "kubepods") in look().found
    assert "strictStart" in look().fix
    (tmp_path / "unified" / "kubepods").mkdir()
    assert look().state is State.OK


def test_a_load_that_was_interrupted_is_told_of(tmp_path: Path) -> None:
    pins = Path("/sys/fs/bpf/ztunnel", unique())
    settings = replace(SETTINGS, pins=pins, node="n7")
    (pins / "maps").mkdir(parents=True)
    try:
        found = probe._programs(settings)
        assert (found.state, "was interrupted" in found.found) == (State.WARN, True)
        assert "ztunnel load --node n7" in found.fix
        (pins / "version").symlink_to("another")
        assert probe._programs(settings).state is State.OK
    finally:
        remove(pins)


def test_without_a_nodes_name_every_proxy_of_the_machine_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_PINS", tmp_path)
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "version").symlink_to("one")
    (tmp_path / "+n2").mkdir()
    nobody = replace(SETTINGS, node="")
    found = probe._programs(nobody)
    assert (found.state, found.found.split(";")[0]) == (State.OK, "pinned: n1")
    (tmp_path / "n3").mkdir()
    found = probe._programs(nobody)
    assert (found.state, found.found) == (State.WARN, f"a load was interrupted: {tmp_path}/n3 is not whole")


def test_our_own_programs_are_nobody_elses_without_a_nodes_name(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(probe, "programs_beside", lambda pins: looked.append(pins.root) or frozenset())
    for node in ("", "n1"):
        list(probe._neighbours(replace(SETTINGS, node=node)))
    assert [place.parent for place in looked] == [Path("/sys/fs/bpf/ztunnel")] * 2


def test_without_root_all_is_looked_at_and_what_cannot_be_is_said(tmp_path: Path) -> None:
    shut = tmp_path / "etc" / "cni"
    shut.mkdir(parents=True)
    shut.chmod(0o700)
    os.seteuid(65534)
    try:
        found = checked(root=tmp_path)
    finally:
        os.seteuid(0)
    assert {found[name].state for name in ("CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN")} == {State.FAIL}
    tried = ("netfilter programs", "eBPF programs", "SOCK_DESTROY")
    for name in (*tried, "programs on cgroup hooks", "/etc/cni/net.d"):
        assert (found[name].state, found[name].fix) == (State.WARN, "check as root")
