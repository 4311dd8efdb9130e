from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import workload
from tests.kernel.lab import Lab
from tests.run.parts import SETTINGS, built, served_by
from ztunnel.control.serve import Server
from ztunnel.errors import Unsupported
from ztunnel.kernel import cgroup
from ztunnel.run import build
from ztunnel.run.build import open_redirection
from ztunnel.run.reporting import Reporting
from ztunnel.state.delta import apply
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.repairs import Repairs

REPAIRS = Repairs(Figures(), lambda message, **fields: None, lambda: 0.0)


async def test_a_node_is_of_its_settings():
    with built(served_by(Server()), pool_max_streams=7, buffer_limit_bytes=1 << 21) as (node, redirection):
        assert node.ledger.limits.open_streams == 7
        assert node.ledger.limits.buffered_bytes == 1 << 21
        assert node.redirection is redirection
        assert node.reporting.readiness.pending(0.0) == ["state manager", "pods"]


async def test_levels_of_the_access_log_are_asked_before_a_line_is_made():
    with built(served_by(Server())) as (node, _):
        report = node.pods._ways.inbound.report
        assert not report._wants(0)
        node.reporting.levels.change("access:trace")
        assert report._wants(0)


async def test_who_has_anothers_address_is_not_reached_through_its_sessions():
    with built(served_by(Server())) as (node, _):
        left = []
        node.tunnels.leave = lambda concerns: left.append(concerns)
        ours = workload("a").at("10.0.0.1")
        node.hold.publish(*apply(node.hold.world, [ours]))
        other = workload("b").at("10.0.0.1")
        node.hold.publish(*apply(node.hold.world, [other], [ours.uid]))
        assert len(left) == 1


@pytest.mark.root
def test_the_root_cgroup_is_refused_before_anything_is_loaded(tmp_path):
    root = cgroup.find_root()
    before = cgroup.own_path(root)
    cgroup.join(root)
    try:
        with pytest.raises(Unsupported, match=r"the proxy is in the root cgroup.* mkdir "):
            open_redirection(replace(SETTINGS, cache_dir=tmp_path / "cache", pins=tmp_path / "pins"), REPAIRS)
    finally:
        cgroup.join(before)
    assert not list(tmp_path.iterdir())


@pytest.mark.root
def test_what_cannot_be_loaded_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with Lab(), pytest.raises(Unsupported, match=r"cannot be loaded: .*Not a directory"):
        open_redirection(replace(SETTINGS, cache_dir=tmp_path / "file", pins=tmp_path / "pins"), REPAIRS)
    with Lab(), pytest.raises(Unsupported, match="is on no bpffs"):
        open_redirection(replace(SETTINGS, cache_dir=tmp_path / "cache", pins=tmp_path / "pins"), REPAIRS)
    assert not (tmp_path / "pins").exists()


def test_keepalive_is_whole_seconds_or_nothing():
    some = replace(SETTINGS, keepalive_time_seconds=0.2, keepalive_interval_seconds=75.0, keepalive_retries=3)
    assert build.keepalive_of(some) == (1, 75, 3)
    assert build.keepalive_of(replace(some, keepalive=False)) is None


@pytest.mark.parametrize(
    ("files", "places", "said"),
    [(256, 1, True), (1024, 1, True), (8192, 2560, True), (65536, 30208, False), (1 << 20, 521728, False)],
)
def test_a_limit_of_open_files_that_leaves_room_for_few_connections_is_said(files, places, said):
    reporting = Reporting(SETTINGS)
    assert build._places(reporting, files) == places
    found = [line for line in reporting.writer.buffer.waiting if "LimitNOFILE" in line]
    assert len(found) == said
    assert all(f"at_once={places} " in line and f"open_files={files}" in line for line in found)
